"""What a candidate is held against, and how sure one can be of so few requests."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.rollout.evidence import Count
from serving.rollout.judgement import (
    Bounds,
    Bucket,
    Window,
    best_percentile,
    judge,
    quantile,
    quantile_bounds,
    wilson,
)

pytestmark = [pytest.mark.unit]

BOUNDS = Bounds(max_error_rate=0.01, max_latency_ratio=1.5, min_requests=100)
BUCKETS = st.lists(st.tuples(st.integers(1, 500), st.integers(1, 50)), min_size=1, max_size=30).map(
    lambda pairs: tuple(sorted((float(low), 1.0, count) for low, count in dict(pairs).items()))
)


def window(requests: int, errors: int = 0, ms: float = 10.0) -> Window:
    return Window(requests, errors, ((ms, 1.0, requests),))


def test_a_version_that_does_as_the_old_one_is_within() -> None:
    assert judge(window(1000), window(9000), BOUNDS).state == "within"


def test_many_failures_breach_at_once_and_one_of_few_does_not() -> None:
    assert judge(window(200, 20), window(200), BOUNDS).state == "breached"
    assert judge(window(20, 1), window(200), BOUNDS).state == "unclear"
    assert judge(window(1000, 10), window(200), BOUNDS).state == "within"


def test_what_fails_with_both_versions_is_not_the_new_ones_fault() -> None:
    assert judge(window(200, 8), window(2000, 80), BOUNDS).state == "within"
    assert judge(window(200, 40), window(2000, 80), BOUNDS).state == "breached"
    assert judge(window(200, 40), window(2000, 1000), BOUNDS).state == "breached"


def test_no_failure_is_allowed_when_none_is() -> None:
    none = Bounds(0.0, 1.5, 100)
    assert judge(window(100, 1), window(100), none).state == "breached"
    assert judge(window(100, 0), window(100), none).state == "within"


def test_too_few_requests_are_unclear_however_good_they_are() -> None:
    judgement = judge(window(99), window(1000), BOUNDS)
    assert judgement.state == "unclear"
    assert "99 of at least 100 requests" in judgement.figures


def test_a_slow_version_breaches_when_there_are_enough_requests_to_say_so() -> None:
    assert judge(window(400, ms=60), window(400, ms=10), BOUNDS).state == "breached"
    assert judge(window(400, ms=14), window(400, ms=10), BOUNDS).state == "within"
    assert judge(window(3, ms=60), window(3, ms=10), BOUNDS).state == "unclear"


def test_a_millisecond_is_never_a_reason() -> None:
    assert judge(window(400, ms=1), window(400, ms=0), BOUNDS).state == "within"


def test_without_latencies_nothing_is_said() -> None:
    assert judge(Window(500, 0), window(500), BOUNDS).state == "unclear"


@pytest.mark.parametrize(("requests", "share"), [(299, 0.99), (298, 0.95), (59, 0.95), (58, 0.9), (28, 0.5), (0, 0.5)])
def test_the_percentile_is_one_that_so_many_requests_can_bound(requests: int, share: float) -> None:
    assert best_percentile(requests) == share


@given(st.integers(0, 5000), st.integers(0, 5000))
def test_an_interval_of_a_share_holds_the_share(hits: int, misses: int) -> None:
    low, high = wilson(hits, hits + misses)
    assert 0 <= low <= high <= 1
    assert hits + misses == 0 or low - 1e-9 <= hits / (hits + misses) <= high + 1e-9


@given(BUCKETS, st.sampled_from([0.5, 0.9, 0.95, 0.99]))
def test_bounds_of_a_quantile_hold_the_quantile(buckets: tuple[Bucket, ...], share: float) -> None:
    low, high = quantile_bounds(buckets, share)
    assert low <= quantile(buckets, share) + 1e-9
    assert high >= quantile(buckets, share) - 1e-9
    total = sum(count for _, _, count in buckets)
    assert math.isinf(high) == (share**total > 0.05)


@given(st.integers(1, 2000), st.integers(0, 2000), st.integers(0, 100))
def test_more_failures_are_never_better(requests: int, errors: int, more: int) -> None:
    errors, worse = min(errors, requests), min(errors + more, requests)
    order = ("within", "unclear", "breached")
    before = judge(window(requests, errors), window(1000), BOUNDS).state
    assert order.index(before) <= order.index(judge(window(requests, worse), window(1000), BOUNDS).state)


def test_counts_of_an_envoy_that_was_started_again_begin_anew() -> None:
    before = Count(100, 5, {(10.0, 1.0): 100})
    assert Count(120, 5, {(10.0, 1.0): 110, (20.0, 1.0): 10}).since(before) == Window(
        20, 0, ((10.0, 1.0, 10), (20.0, 1.0, 10))
    )
    assert Count(7, 1, {(10.0, 1.0): 7}).since(before) == Window(7, 1, ((10.0, 1.0, 7),))
