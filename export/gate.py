"""The gate: nothing is promoted unmeasured.

A variant may enter a bundle if it loses no more of the metric on dev than the budget allows, still gives the dense
checkpoint's label almost always, matches its logits where it is meant to be exact, and is faster than it. Of those that
pass, the fastest is chosen. Dev decides; test is not looked at here.
"""

from slipway.bundle import Variant
from slipway.errors import GateError
from slipway.recipe import Export

MAX_FP32_DIFFERENCE = 1e-3
"""Largest difference of a logit that an fp32 graph may show against PyTorch; reordered sums explain about 1e-5."""


def judge(variant: Variant, section: Export) -> Variant:
    """`variant` with `passed` and `verdict` filled in."""
    objections = []
    if variant.loss_points > section.budget:
        objections.append(f"loses {variant.loss_points:.2f} points of {variant.metric}, budget {section.budget:g}")
    if variant.agreement < section.min_agreement:
        objections.append(f"agrees on {variant.agreement:.1%} of dev, at least {section.min_agreement:.1%} is asked")
    if variant.precision == "fp32" and variant.max_logit_difference > MAX_FP32_DIFFERENCE:
        objections.append(
            f"logits differ by {variant.max_logit_difference:.2g} from PyTorch's, at most {MAX_FP32_DIFFERENCE:g}"
        )
    if variant.speedup <= 1:
        objections.append(f"is not faster than PyTorch ({variant.speedup:.2f}×)")
    verdict = "; ".join(objections) or "passes"
    return variant.model_copy(update={"passed": not objections, "verdict": verdict})


def choose(variants: list[Variant]) -> list[Variant]:
    """`variants` with the fastest one that passes marked as chosen; the others say what they lost to.

    Raises `GateError` that names the nearest one if none passes.
    """
    passing = [variant for variant in variants if variant.passed]
    if not passing:
        nearest = min(variants, key=lambda variant: (variant.verdict.count(";"), variant.loss_points))
        tried = "; ".join(f"{variant.name} {variant.verdict}" for variant in variants)
        raise GateError(f"no variant may be promoted, and no bundle was written. Nearest: {nearest.name}. ({tried})")
    best = min(passing, key=lambda variant: variant.latency_ms["p50"])

    def settle(variant: Variant) -> Variant:
        if variant is best:
            return variant.model_copy(update={"chosen": True, "verdict": "chosen: the fastest that passes"})
        if variant.passed:
            slower = variant.latency_ms["p50"] / best.latency_ms["p50"]
            return variant.model_copy(update={"verdict": f"passes, but is {slower:.2f}× as slow as {best.name}"})
        return variant

    return [settle(variant) for variant in variants]
