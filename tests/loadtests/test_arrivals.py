"""When requests come."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtests.arrivals import PROCESSES

pytestmark = pytest.mark.unit

processes = st.sampled_from(sorted(PROCESSES))
rates = st.floats(0.1, 2000)
durations = st.floats(0.01, 20)
seeds = st.integers(0, 2**32 - 1)


@given(processes, rates, durations, seeds)
def test_times_ascend_within_the_window(process: str, rate: float, duration_s: float, seed: int) -> None:
    times = PROCESSES[process](np.random.default_rng(seed), rate, duration_s)
    assert (np.diff(times) >= 0).all()
    assert ((times >= 0) & (times < duration_s)).all()


@given(processes, rates, durations, seeds)
def test_the_same_seed_gives_the_same_schedule(process: str, rate: float, duration_s: float, seed: int) -> None:
    first, second = (PROCESSES[process](np.random.default_rng(seed), rate, duration_s) for _ in range(2))
    np.testing.assert_array_equal(first, second)


@given(rates, durations, seeds)
def test_poisson_count_is_near_its_mean(rate: float, duration_s: float, seed: int) -> None:
    count = len(PROCESSES["poisson"](np.random.default_rng(seed), rate, duration_s))
    mean = rate * duration_s
    # Chernoff: P(|count − mean| ≥ t) ≤ 2 exp(−t² / 2(mean + t/3)); this t makes it less than 1e-9.
    t = 7.2 * np.sqrt(mean) + 15
    assert abs(count - mean) < t


@given(st.floats(1, 2000), st.floats(1, 20), seeds)
def test_a_longer_window_only_adds_arrivals(rate: float, duration_s: float, seed: int) -> None:
    whole = PROCESSES["constant"](np.random.default_rng(seed), rate, duration_s)
    part = PROCESSES["constant"](np.random.default_rng(seed), rate, duration_s / 2)
    np.testing.assert_array_equal(part, whole[: len(part)])


@given(rates, durations)
def test_constant_arrivals_are_one_gap_apart_and_as_many_as_fit(rate: float, duration_s: float) -> None:
    times = PROCESSES["constant"](np.random.default_rng(0), rate, duration_s)
    np.testing.assert_allclose(np.diff(times), 1 / rate, rtol=1e-6)
    assert abs(len(times) - rate * duration_s) <= 1


def test_poisson_gaps_are_exponential() -> None:
    gaps = np.diff(PROCESSES["poisson"](np.random.default_rng(5), 100, 1000)) * 100
    for share in (0.1, 0.5, 0.9):
        assert np.quantile(gaps, share) == pytest.approx(-np.log(1 - share), rel=0.03)
