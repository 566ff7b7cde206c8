"""What is sent when."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtests.plan import draw_plan
from slipway.errors import LoadTestError
from slipway.recipe import LoadTest

pytestmark = pytest.mark.unit


@given(st.integers(-(2**40), 2**40))
def test_the_same_seed_gives_the_same_times_protocols_and_texts(seed: int) -> None:
    section = LoadTest(rate=50.0, duration_s=2.0, seed=seed)
    first, second = draw_plan(section, 7), draw_plan(section, 7)
    for name in ("scheduled_s", "protocol", "text_index"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))


def test_another_seed_gives_another_schedule() -> None:
    first, second = (draw_plan(LoadTest(seed=seed), 7).scheduled_s[:10] for seed in (1, 2))
    assert not np.array_equal(first, second)


def test_arrivals_depend_neither_on_the_texts_nor_on_the_protocols() -> None:
    reference = draw_plan(LoadTest(), 7).scheduled_s
    np.testing.assert_array_equal(draw_plan(LoadTest(), 1000).scheduled_s, reference)
    np.testing.assert_array_equal(draw_plan(LoadTest(protocols=["http"]), 7).scheduled_s, reference)


def test_warming_up_lies_before_zero_at_the_same_rate() -> None:
    times = draw_plan(LoadTest(rate=100.0, warmup_s=2.0, duration_s=3.0, arrivals="constant"), 7).scheduled_s
    assert times[0] == -2.0
    assert (times < 0).sum() == 200
    assert (times >= 0).sum() == 300


def test_no_text_comes_twice_before_all_have_come() -> None:
    plan = draw_plan(LoadTest(rate=100.0), 13)
    for start in range(0, len(plan) - 13, 13):
        assert sorted(plan.text_index[start : start + 13]) == list(range(13))


def test_both_protocols_get_about_half() -> None:
    plan = draw_plan(LoadTest(rate=1000.0, duration_s=10.0), 13)
    assert 0.45 < plan.protocol.mean() < 0.55


@given(st.integers(1, 8))
def test_shares_of_the_workers_are_the_whole_plan(workers: int) -> None:
    plan = draw_plan(LoadTest(), 13)
    shares = [plan.share(index, workers).scheduled_s for index in range(workers)]
    np.testing.assert_array_equal(np.sort(np.concatenate(shares)), plan.scheduled_s)


def test_a_window_without_arrivals_is_refused() -> None:
    with pytest.raises(LoadTestError, match=r"nothing arrives within 0\.01 s at rate 0\.01/s"):
        draw_plan(LoadTest(rate=0.01, duration_s=0.01, warmup_s=0.0), 13)


def test_a_plan_too_large_for_memory_is_refused_before_it_is_made() -> None:
    with pytest.raises(LoadTestError, match="at most 5,000,000"):
        draw_plan(LoadTest(rate=1_000_000.0, duration_s=86_400.0), 13)
