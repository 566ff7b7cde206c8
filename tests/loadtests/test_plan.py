"""What is sent when."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from loadtests.plan import count_texts, draw_plan, plan_chunks
from slipway.errors import LoadTestError
from slipway.recipe import LoadTest

pytestmark = pytest.mark.unit

COLUMNS = ("scheduled_s", "protocol", "sizes", "sent_texts")


def section(**values: object) -> LoadTest:
    return LoadTest.model_validate(values)


@given(st.integers(-(2**40), 2**40))
def test_the_same_seed_gives_the_same_times_protocols_and_texts(seed: int) -> None:
    load = LoadTest(rate=50.0, duration_s=2.0, seed=seed)
    first, second = draw_plan(load, 7), draw_plan(load, 7)
    for name in COLUMNS:
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))


def test_another_seed_gives_another_schedule() -> None:
    first, second = (draw_plan(LoadTest(seed=seed), 7).scheduled_s[:10] for seed in (1, 2))
    assert not np.array_equal(first, second)


def test_arrivals_depend_on_nothing_else() -> None:
    reference = draw_plan(LoadTest(), 7).scheduled_s
    np.testing.assert_array_equal(draw_plan(LoadTest(), 1000).scheduled_s, reference)
    for more in ({"protocols": ["http"]}, {"traffic": "hot-keys"}, {"batch_size": 8}):
        np.testing.assert_array_equal(draw_plan(section(**more), 7).scheduled_s, reference)


def test_warming_up_lies_before_zero_at_the_same_rate() -> None:
    times = draw_plan(section(rate=100.0, warmup_s=2.0, duration_s=3.0, arrivals="constant"), 7).scheduled_s
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


def test_requests_hold_as_many_texts_as_the_recipe_says() -> None:
    plan = draw_plan(section(rate=1000.0, duration_s=10.0, batch_size={1: 3, 16: 1}), 50)
    assert (plan.sizes == 16).mean() == pytest.approx(0.25, abs=0.02)
    assert len(plan.sent_texts) == plan.sizes.sum()
    texts = [row for request in range(20) for row in plan.texts_of(request)]
    assert texts == plan.sent_texts[: len(texts)].tolist()
    assert plan.text_index[7] == plan.texts_of(7)[0]


@settings(max_examples=30)
@given(
    st.integers(1, 8),
    st.sampled_from(["poisson", "constant", {"process": "spikes", "every_s": 8}]),
    st.sampled_from([1, {1: 1, 5: 1}]),
)
def test_the_workers_shares_superpose_to_exactly_the_plan(workers: int, process: object, sizes: object) -> None:
    # More than one chunk, whose length no number of workers above 2 divides.
    load = section(rate=1000.0, duration_s=10.0, arrivals=process, batch_size=sizes)
    whole = draw_plan(load, 13)
    shares = [chunk for worker in range(workers) for chunk in plan_chunks(load, 13, worker=worker, workers=workers)]
    order = np.argsort(np.concatenate([share.scheduled_s for share in shares]), kind="stable")
    for name in ("scheduled_s", "protocol", "sizes", "text_index"):
        together = np.concatenate([getattr(share, name) for share in shares])[order]
        np.testing.assert_array_equal(together, getattr(whole, name))
    # The other texts of a request stay with it.
    assert [shares[0].texts_of(row) for row in range(50)] == [whole.texts_of(row * workers) for row in range(50)]


def test_one_workers_share_alone_is_regular_enough_to_tell() -> None:
    """Every second arrival of a Poisson process is an Erlang process: only together are the shares Poisson."""
    load = section(rate=100.0, duration_s=200.0)
    shares = [
        np.concatenate([chunk.scheduled_s for chunk in plan_chunks(load, 3, worker=worker, workers=2)])
        for worker in (0, 1)
    ]
    assert stats.kstest(np.diff(shares[0]) * 50, "expon").pvalue < 1e-6
    assert stats.kstest(np.diff(np.sort(np.concatenate(shares))) * 100, "expon").pvalue > 0.001


def test_a_window_without_arrivals_is_refused() -> None:
    with pytest.raises(LoadTestError, match=r"nothing arrives within 0\.01 s at rate 0\.01/s"):
        draw_plan(LoadTest(rate=0.01, duration_s=0.01, warmup_s=0.0), 13)


def test_a_probe_that_ends_before_the_first_spike_is_refused() -> None:
    probe = section(rate=100.0, duration_s=60.0, arrivals="spikes").model_copy(update={"duration_s": 10.0})
    with pytest.raises(LoadTestError, match="first spike begins after 15 s"):
        draw_plan(probe, 5)
    closed = section(rate=100.0, duration_s=10.0, arrivals="spikes", loop="closed")
    assert not closed.misses_spikes


def test_a_plan_of_days_begins_at_once() -> None:
    chunk = next(plan_chunks(LoadTest(rate=1_000_000.0, duration_s=604_800.0, warmup_s=0.0), 13))
    assert 0 < len(chunk) < 10_000


def test_texts_are_counted_no_further_than_asked() -> None:
    assert count_texts(LoadTest(rate=1_000_000.0, duration_s=604_800.0), 5000) == 5000
    load = section(rate=10.0, duration_s=3.0, warmup_s=1.0, arrivals="constant", batch_size=4)
    assert count_texts(load, 5000) == 160
    assert count_texts(section(loop="closed"), 5000) == 5000
