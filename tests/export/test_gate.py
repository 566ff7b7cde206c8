"""The gate lets through only what is as good, as faithful and faster; the fastest of those is chosen."""

import pytest

from export.gate import choose, judge
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
        "agreement": 0.98,
        "max_logit_difference": 0.3,
        "latency_ms": {"p50": 3.0, "p95": 4.0},
        "speedup": 4.0,
        "passed": False,
        "verdict": "",
    }
    return Variant.model_validate(fields | changes)


SECTION = Export(budget=1.0, min_agreement=0.95)


def test_a_good_and_fast_variant_passes() -> None:
    assert judge(variant(), SECTION).passed


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"loss_points": 1.01}, "loses 1.01 points of macro_f1, budget 1"),
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


def test_the_fastest_that_passes_is_chosen_and_the_others_say_why_not() -> None:
    fast_but_wrong = judge(variant("wrong", latency_ms={"p50": 1.0, "p95": 1.0}, loss_points=9.0), SECTION)
    fast = judge(variant("fast", latency_ms={"p50": 2.0, "p95": 3.0}), SECTION)
    slow = judge(variant("slow", latency_ms={"p50": 4.0, "p95": 5.0}), SECTION)
    chosen = {entry.name: entry for entry in choose([fast_but_wrong, slow, fast])}
    assert [name for name, entry in chosen.items() if entry.chosen] == ["fast"]
    assert "2.00× as slow as fast" in chosen["slow"].verdict
    assert "loses 9.00 points" in chosen["wrong"].verdict


def test_a_gate_that_nothing_passes_names_the_nearest_and_exits_with_3() -> None:
    bad = [judge(variant("a", loss_points=5.0), SECTION), judge(variant("b", loss_points=2.0), SECTION)]
    with pytest.raises(GateError, match=r"Nearest: b\.") as caught:
        choose(bad)
    assert caught.value.exit_code == 3
