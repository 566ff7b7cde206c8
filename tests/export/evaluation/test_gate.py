"""The gate lets through only what is as good, as faithful and faster; what it chooses follows from what was asked."""

import pytest

from export.evaluation.gate import choose, judge
from slipway.bundle import Variant
from slipway.errors import GateError
from slipway.recipe import Export

pytestmark = pytest.mark.unit


def variant(name: str = "int8", **changes: object) -> Variant:
    fields = {
        "name": name,
        "precision": "int8",
        "engine": "onnxruntime",
        "bytes": 23_000_000,
        "metric": "macro_f1",
        "dev": {},
        "loss_points": 0.5,
        "loss_interval": (-0.3, 1.3),
        "loss_error": 0.4,
        "loss_p_value": 0.11,
        "agreement": 0.98,
        "max_logit_difference": 0.3,
        "latency_ms": {"p50": 3.0, "p95": 4.0},
        "speedup": 4.0,
        "passed": False,
        "verdict": "",
    }
    return Variant.model_validate(fields | changes)


def latency(p50: float) -> dict[str, float]:
    return {"p50": p50, "p95": 2 * p50}


def chosen_of(variants: list[Variant], section: Export) -> str:
    settled = choose([judge(each, section) for each in variants], section)
    (name,) = [each.name for each in settled if each.chosen]
    return name


SECTION = Export(budget=1.0, min_agreement=0.95, at="1x32")


def test_a_good_and_fast_variant_passes() -> None:
    assert judge(variant(), SECTION).passed


def test_the_verdict_says_what_a_server_of_single_texts_would_rather_take() -> None:
    one = variant("one", latency_ms=latency(2.0), text_ms=latency(3.0))
    other = variant("other", latency_ms=latency(2.5), text_ms=latency(1.5))
    settled = choose([judge(each, SECTION) for each in (one, other)], SECTION)
    assert settled[0].verdict.endswith("other answers 2.0 times as many (--at texts)")
    alike = other.model_copy(update={"text_ms": latency(2.9)})
    assert choose([judge(each, SECTION) for each in (one, alike)], SECTION)[0].verdict.endswith("that passes")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"loss_points": 1.01}, "loses 1.01 points of macro_f1"),
        ({"agreement": 0.949}, "agrees on 94.9%"),
        ({"precision": "fp32", "max_logit_difference": 0.01}, "logits differ by 0.01"),
        ({"speedup": 0.9}, "not faster than PyTorch"),
    ],
)
def test_what_is_wrong_with_a_variant_is_said(changes: dict[str, object], reason: str) -> None:
    judged = judge(variant(**changes), SECTION)
    assert not judged.passed
    assert reason in judged.verdict


def test_quantized_logits_may_differ() -> None:
    assert judge(variant(max_logit_difference=2.0), SECTION).passed


def test_one_point_is_allowed_where_nothing_is_set_and_nothing_is_where_another_limit_is() -> None:
    assert not judge(variant(loss_points=1.5), Export(min_agreement=0)).passed
    assert judge(variant(loss_points=1.5), Export(min_agreement=0, max_latency_ms=5.0)).passed
    assert not judge(variant(loss_points=1.5), Export(min_agreement=0, max_latency_ms=5.0, budget=1.0)).passed


def test_a_budget_of_zero_takes_what_dev_cannot_tell_from_nothing() -> None:
    nothing = Export(budget=0.0)
    assert judge(variant(loss_points=-0.2), nothing).passed
    assert judge(variant(loss_points=0.39), nothing).passed
    refused = judge(variant(loss_points=0.41), nothing)
    assert not refused.passed
    assert "at most one standard error, 0.40" in refused.verdict


def test_a_budget_below_what_dev_can_tell_says_so() -> None:
    assert "less than dev can tell (± 0.40)" in judge(variant(loss_points=0.3), Export(budget=0.2)).verdict


@pytest.mark.parametrize(("low", "said"), [(0.1, "a real loss"), (-0.1, "not a measurable loss")])
def test_the_verdict_says_whether_a_loss_is_real(low: float, said: str) -> None:
    assert said in judge(variant(loss_interval=(low, 0.9)), SECTION).verdict


def test_the_mean_of_the_seeds_decides_where_there_are_several() -> None:
    lucky = variant(loss_points=0.2, seeds=[{"loss_points": 0.2}, {"loss_points": 1.6}, {"loss_points": 1.5}])
    judged = judge(lucky, SECTION)
    assert not judged.passed
    assert "1.10 points on the mean of 3 seeds" in judged.verdict


def test_the_fastest_that_passes_is_chosen_and_the_others_say_why_not() -> None:
    variants = [
        variant("wrong", latency_ms=latency(1.0), loss_points=9.0),
        variant("slow", latency_ms=latency(4.0)),
        variant("fast", latency_ms=latency(2.0)),
    ]
    settled = {each.name: each for each in choose([judge(each, SECTION) for each in variants], SECTION)}
    assert [name for name, each in settled.items() if each.chosen] == ["fast"]
    assert "2.00× as slow as fast" in settled["slow"].verdict
    assert "loses 9.00 points" in settled["wrong"].verdict


def test_of_those_that_are_equally_fast_and_good_the_smallest_is_chosen() -> None:
    variants = [
        variant("lossy", latency_ms=latency(2.00), loss_points=0.9, bytes=5_000_000),
        variant("large", latency_ms=latency(2.08), loss_points=0.1, bytes=9_000_000),
        variant("small", latency_ms=latency(2.08), loss_points=0.3, bytes=6_000_000),
        variant("slow", latency_ms=latency(2.20), loss_points=0.0, bytes=1_000_000),
    ]
    assert chosen_of(variants, SECTION) == "small"


def test_one_that_is_as_fast_and_good_but_larger_lost_for_its_size() -> None:
    variants = [
        variant("large", latency_ms=latency(2.00), bytes=9_000_000),
        variant("small", latency_ms=latency(2.02), bytes=6_000_000),
    ]
    settled = choose([judge(each, SECTION) for each in variants], SECTION)
    assert settled[0].verdict == "passes, but is 1.50× as large as small"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"bytes": 8_004_000}, "has 8.004 MB, at most 8 MB"),
        ({"bytes": 23_000_000}, "has 23.0 MB, at most 8 MB"),
        ({"latency_ms": latency(5.0004)}, "takes 5.0004 ms at 1x32, at most 5 ms"),
        ({"agreement": 0.94997}, "agrees on 94.997% of dev, at least 95.0% is asked"),
    ],
)
def test_what_misses_a_limit_by_little_is_not_written_as_the_limit(changes: dict[str, object], reason: str) -> None:
    section = Export(min_agreement=0.95, max_size_mb=8.0, max_latency_ms=5.0, at="1x32")
    assert reason in judge(variant(**{"bytes": 7_000_000} | changes), section).verdict


def test_of_those_that_are_equally_fast_and_large_the_one_that_loses_least_is_chosen() -> None:
    variants = [
        variant("smaller by a hair", latency_ms=latency(2.00), loss_points=0.8, bytes=9_229_000),
        variant("better", latency_ms=latency(2.02), loss_points=0.2, bytes=9_240_000),
    ]
    assert chosen_of(variants, Export(budget=1.0)) == "better"


def test_what_is_chosen_unmeasured_is_not_called_fast() -> None:
    (settled,) = choose([judge(variant(latency_ms={}), SECTION)], SECTION)
    assert "by rule" in settled.verdict


def test_a_latency_turns_the_search_round() -> None:
    variants = [
        variant("tiny", latency_ms=latency(1.0), loss_points=6.0),
        variant("good", latency_ms=latency(4.8), loss_points=0.4),
        variant("best", latency_ms=latency(5.2), loss_points=0.0),
    ]
    section = Export(max_latency_ms=5.0, at="1x128", min_agreement=0.0)
    assert chosen_of(variants, section) == "good"
    assert "5.2 ms at 1x128, at most 5 ms" in judge(variants[2], section).verdict


def test_a_size_turns_the_search_round_and_among_equals_the_fastest_is_taken() -> None:
    variants = [
        variant("large", bytes=23_000_000, loss_points=0.0),
        variant("small", bytes=7_900_000, loss_points=0.4, latency_ms=latency(2.0)),
        variant("smaller", bytes=6_000_000, loss_points=0.6, latency_ms=latency(1.0)),
        variant("bad", bytes=2_000_000, loss_points=5.0, latency_ms=latency(0.5)),
    ]
    # 0.2 points are within the standard error of the better one.
    assert chosen_of(variants, Export(max_size_mb=8.0, min_agreement=0.0)) == "smaller"


def test_the_dense_model_has_no_error_and_one_that_loses_no_more_than_its_own_is_as_good() -> None:
    variants = [
        variant("dense", loss_points=0.0, loss_error=0.0, latency_ms=latency(4.9)),
        variant("int8", loss_points=0.1, loss_error=0.4, latency_ms=latency(1.5)),
        variant("worse", loss_points=0.5, loss_error=0.4, latency_ms=latency(1.0)),
    ]
    assert chosen_of(variants, Export(max_latency_ms=5.0, at="1x32", min_agreement=0.0)) == "int8"


def test_what_was_not_measured_can_promise_no_latency() -> None:
    unmeasured = variant(latency_ms={}, speedup=1.0)
    assert judge(unmeasured, SECTION).passed
    assert "was not measured" in judge(unmeasured, Export(max_latency_ms=5.0)).verdict


def test_a_gate_that_nothing_passes_names_the_nearest_and_exits_with_3() -> None:
    bad = [judge(variant("a", loss_points=5.0), SECTION), judge(variant("b", loss_points=2.0), SECTION)]
    with pytest.raises(GateError, match=r"Nearest is b \(3 ms at 1x32, 23\.0 MB\)") as caught:
        choose(bad, SECTION)
    assert caught.value.exit_code == 3
