"""The search for the capacity, against servers whose capacity is known and whose answers are noisy."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadtests.search import Search
from slipway.capacity import Interval

pytestmark = pytest.mark.unit


def searched(
    capacity: float,
    *,
    width: float = 0.0,
    accident: float = 0.0,
    client: float = math.inf,
    start: float = 20.0,
    most: int = 60,
    seed: int = 0,
    precision: float = 0.2,
) -> tuple[Search, list[float]]:
    """A search on a server that meets below `capacity`, give or take `width`, with a client that can offer `client`."""
    rng = np.random.default_rng(seed)
    search = Search(start, 20_000, 0.9, precision)
    rates: list[float] = []
    while len(rates) < most and (rate := search.next_rate()) is not None:
        rates.append(rate)
        limit = math.log(capacity) + (rng.logistic(0, width) if width else 0)
        met = math.log(rate) <= limit and rng.random() >= accident
        search.tell(rate, "invalid" if rate > client else "met" if met else "missed")
    return search, rates


def interval_of(search: Search) -> Interval:
    interval = search.interval()
    assert interval is not None
    return interval


def test_the_rate_is_doubled_until_it_is_missed_and_then_bisected() -> None:
    _, rates = searched(300)
    assert rates[:5] == [20, 40, 80, 160, 320]
    assert 160 < rates[5] < 320


def test_it_is_halved_where_even_the_first_is_missed() -> None:
    search, rates = searched(3, start=20)
    assert rates[:4] == [20, 10, 5, 2.5]
    interval = interval_of(search)
    assert interval.high is not None
    assert interval.low <= 3 <= interval.high


@given(st.floats(0.5, 15_000), st.floats(1, 5000))
@settings(max_examples=15, deadline=None)
def test_with_clear_answers_the_capacity_is_found_as_precisely_as_asked(capacity: float, start: float) -> None:
    search, rates = searched(capacity, start=start)
    interval = interval_of(search)
    assert interval.high is not None
    assert interval.low <= capacity <= interval.high <= interval.low * 1.2
    assert interval.low <= interval.estimate <= interval.high
    assert len(rates) < 45


@pytest.mark.parametrize(("width", "accident"), [(0.01, 0.0), (0.03, 0.02), (0.08, 0.05)])
def test_the_interval_holds_the_capacity_as_often_as_it_says(width: float, accident: float) -> None:
    capacities = np.exp(np.random.default_rng(1).uniform(math.log(30), math.log(3000), 40))
    held, probes = 0, 0
    for seed, capacity in enumerate(capacities):
        search, rates = searched(capacity, width=width, accident=accident, seed=seed)
        interval = interval_of(search)
        held += interval.low <= capacity <= (interval.high or math.inf)
        probes += len(rates)
    # 0.9 is promised; four standard errors below it would be an accident of one in 30,000.
    assert held / len(capacities) >= 0.9 - 4 * math.sqrt(0.09 / len(capacities))
    assert probes / len(capacities) < 32


def test_an_unlucky_answer_does_not_send_it_astray_for_ever() -> None:
    search = Search(100, 20_000, 0.9, 0.1)
    search.tell(100, "missed")
    for _ in range(60):
        rate = search.next_rate()
        if rate is None:
            break
        search.tell(rate, "met" if rate <= 200 else "missed")
    interval = interval_of(search)
    assert interval.low <= 200 <= (interval.high or 0)


def test_a_rate_that_is_invalid_is_asked_once_more_before_it_is_the_limit_of_the_client() -> None:
    search = Search(100, 20_000, 0.9, 0.1)
    search.tell(100, "met")
    assert search.next_rate() == 200
    search.tell(200, "invalid")
    assert search.next_rate() == 200
    assert search.client_limit is None
    search.tell(200, "invalid")
    assert search.client_limit == 200
    following = search.next_rate()
    assert following is not None
    assert 100 < following < 200


@given(st.floats(30, 3000))
@settings(max_examples=15, deadline=None)
def test_a_client_that_is_the_limit_is_found_out(limit: float) -> None:
    search, rates = searched(1e9, client=limit)
    interval = interval_of(search)
    assert search.limited_by_client
    assert interval.high is None
    assert interval.low <= limit <= interval.low * 1.21
    assert len(rates) < 30


def test_a_client_that_could_offer_more_is_not_blamed() -> None:
    search, _ = searched(300, client=600)
    assert not search.limited_by_client
    assert interval_of(search).high is not None


def test_it_ends_where_no_rate_may_be_higher() -> None:
    search, rates = searched(1e9)
    assert max(rates) == 20_000
    assert interval_of(search).high is None
    assert not search.limited_by_client


def test_it_gives_up_where_nothing_is_met() -> None:
    search, rates = searched(1e-9)
    assert search.interval() is None
    assert min(rates) >= 0.05
    assert len(rates) < 20
