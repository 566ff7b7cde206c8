"""What a run of this length knows."""

import numpy as np
import pytest
from scipy import stats

from loadtests.intervals import BLOCKS, dependence_of, quantile_interval, share_interval

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(("count", "share"), [(100, 0.5), (1000, 0.99), (5000, 0.999), (20_000, 0.999)])
def test_ranks_are_those_of_the_binomial_distribution(count: int, share: float) -> None:
    low, high = quantile_interval(np.arange(1.0, count + 1), share)
    assert low == stats.binom.ppf(0.025, count, share)
    expected = stats.binom.ppf(0.975, count, share) + 1
    assert high == (expected if expected <= count else None)


def test_the_interval_holds_the_true_quantile_as_often_as_it_says() -> None:
    rng = np.random.default_rng(4)
    true = stats.expon.ppf(0.95)
    held = 0
    for _ in range(500):
        low, high = quantile_interval(np.sort(rng.standard_exponential(400)), 0.95)
        held += low <= true <= (high or np.inf)
    assert 0.93 <= held / 500 <= 0.99


def test_too_few_samples_bound_a_high_percentile_from_below_only() -> None:
    low, high = quantile_interval(np.arange(100.0), 0.999)
    assert high is None
    assert low > 90


def test_one_sample_is_an_interval_without_an_end() -> None:
    assert quantile_interval(np.array([3.0]), 0.5) == (3.0, None)


def test_independent_requests_are_worth_themselves() -> None:
    assert dependence_of(np.random.default_rng(1).random(30_000) < 0.05) == pytest.approx(1, abs=0.6)


def test_requests_that_are_slow_together_are_worth_less() -> None:
    slow = np.zeros(30_000, dtype=np.bool_)
    slow[6000:6500] = slow[21_000:21_300] = True
    assert dependence_of(slow) > 50
    together = quantile_interval(np.arange(30_000.0), 0.99, dependence_of(slow))
    apart = quantile_interval(np.arange(30_000.0), 0.99)
    assert together[0] < apart[0]
    assert together[1] is None or together[1] > apart[1]


def test_dependent_latencies_are_covered_where_the_plain_interval_is_not() -> None:
    """Latencies of a first-order autoregressive process, whose true p95 is known."""
    rng = np.random.default_rng(9)
    phi, count = 0.9, 6000
    true = stats.norm.ppf(0.95) / np.sqrt(1 - phi**2)
    held = {"plain": 0, "blocks": 0}
    for _ in range(200):
        noise = rng.standard_normal(count)
        series = np.empty(count)
        series[0] = noise[0] / np.sqrt(1 - phi**2)
        for step in range(1, count):
            series[step] = phi * series[step - 1] + noise[step]
        ordered = np.sort(series)
        worth = dependence_of(series > np.quantile(ordered, 0.95))
        for name, dependence in (("plain", 1.0), ("blocks", worth)):
            low, high = quantile_interval(ordered, 0.95, dependence)
            held[name] += low <= true <= (high or np.inf)
    assert held["plain"] < 150
    assert held["blocks"] >= 180


def test_nothing_seen_is_not_nothing_possible() -> None:
    low, high = share_interval(0, 300)
    assert low == 0
    assert 0.005 < high < 0.02
    assert share_interval(300, 300)[1] == 1


def test_a_share_of_fewer_independent_requests_is_less_certain() -> None:
    few, many = share_interval(10, 1000, 20.0), share_interval(10, 1000)
    assert few[0] < many[0] < 0.01 < many[1] < few[1]


def test_a_run_shorter_than_the_blocks_is_taken_as_it_is() -> None:
    assert dependence_of(np.array([True, False] * (BLOCKS // 2))) == 1.0
