"""Queues hold what queueing theory says of them, and the bound that they were given."""

import numpy as np
import pytest

from autoscaling.queueing import Replicas, Service, _waits

pytestmark = pytest.mark.unit


def mean_wait_ms(service: Service, load: float) -> float:
    replicas = Replicas(service, np.random.default_rng(0))
    replicas.resize(4)
    waited = requests = 0.0
    for _ in range(20):
        step = replicas.step(4 * load * service.saturation_rate, 50.0)
        waited += step.wait_s.sum()
        requests += step.offered.sum() - step.refused.sum()
    return 1e3 * waited / requests


@pytest.mark.parametrize("load", [0.3, 0.6, 0.8])
@pytest.mark.parametrize("variation", [0.0, 0.5, 1.0])
def test_the_mean_wait_is_that_of_pollaczek_and_khinchine(load: float, variation: float) -> None:
    service = Service(10.0, variation=variation, overhead_ms=0.0, max_in_flight=100_000)
    expected = 10.0 * load / (1 - load) * (1 + variation**2) / 2
    assert mean_wait_ms(service, load) == pytest.approx(expected, rel=0.05)


def test_the_prefix_gives_what_the_recursion_gives() -> None:
    rng = np.random.default_rng(1)
    times = np.sort(rng.uniform(0, 1, (3, 57)), axis=1)
    work = rng.exponential(0.03, (3, 57))
    start = np.array([0.0, 0.02, 0.09])
    bound = 0.1
    before, refused = _waits(start, times, work, bound)
    for row in range(3):
        there, now = start[row], 0.0
        for place in range(57):
            there = max(0.0, there - (times[row, place] - now))
            now = times[row, place]
            assert before[row, place] == pytest.approx(there)
            share = max(0.0, there + work[row, place] - bound) / work[row, place]
            assert refused[row, place] == pytest.approx(min(share, 1.0))
            there = min(bound, there + work[row, place])


def test_twice_what_a_replica_can_do_is_refused_by_half() -> None:
    service = Service(10.0, variation=0.0, overhead_ms=0.0, max_in_flight=5)
    replicas = Replicas(service, np.random.default_rng(0))
    replicas.resize(3)
    step = replicas.step(3 * 2 * service.saturation_rate, 60.0)
    assert step.refused.sum() / step.offered.sum() == pytest.approx(0.5, abs=0.02)
    assert step.busy_s == pytest.approx(60.0, rel=0.01)


@pytest.mark.parametrize("load", [10.0, 1e9])
def test_what_is_far_beyond_a_replica_is_refused_without_being_simulated(load: float) -> None:
    service = Service(10.0, variation=0.0, overhead_ms=0.0, max_in_flight=5)
    replicas = Replicas(service, np.random.default_rng(0))
    replicas.resize(3)
    step = replicas.step(3 * load * service.saturation_rate, 60.0)
    assert step.offered.sum() == pytest.approx(3 * load * service.saturation_rate * 60.0, rel=0.02)
    assert (step.offered - step.refused).sum() == pytest.approx(3 * 60.0 * service.saturation_rate, rel=0.01)
    assert len(step.weights) < 100_000


def test_no_request_waits_longer_than_the_bound_allows() -> None:
    service = Service(10.0, instances=2, variation=0.0, overhead_ms=1.0, max_in_flight=8)
    replicas = Replicas(service, np.random.default_rng(0))
    replicas.resize(1)
    step = replicas.step(5 * service.saturation_rate, 20.0)
    taken = step.latencies_s[step.weights > 0.999]
    assert taken.max() <= (8 / 2 * 10 + 10 + 1) / 1e3 + 1e-9


def test_what_waits_at_the_end_of_a_step_is_worked_off_in_the_next() -> None:
    service = Service(10.0, variation=0.0, overhead_ms=0.0, max_in_flight=1000)
    replicas = Replicas(service, np.random.default_rng(0))
    replicas.resize(1)
    replicas.step(2 * service.saturation_rate, 5.0)
    after = replicas.step(0.01 * service.saturation_rate, 5.0)
    assert after.latencies_s.max() > 1.0


def test_a_new_replica_is_idle_and_one_that_goes_takes_its_queue_along() -> None:
    service = Service(10.0, variation=0.0, max_in_flight=1000)
    replicas = Replicas(service, np.random.default_rng(0))
    replicas.resize(2)
    replicas.step(2 * 2 * service.saturation_rate, 5.0)
    replicas.resize(3)
    quiet = replicas.step(3.0, 1.0)
    assert quiet.wait_s[2] < quiet.wait_s[:2].max()


def test_a_replica_that_can_hold_less_than_it_works_on_is_refused() -> None:
    with pytest.raises(ValueError, match="max_in_flight"):
        Service(10.0, instances=4, max_in_flight=2)
