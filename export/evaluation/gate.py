"""The gate: nothing is promoted unmeasured, and no loss is called one that dev can't tell from chance.

A variant may enter a bundle if, on dev, it loses no more of the metric than the budget allows, mostly gives the dense
checkpoint's label, matches the logits of its own PyTorch weights where it is meant to be exact, and is faster than
dense PyTorch. Test is not looked at here.

**What a budget means.** The loss is a difference of two metrics on the same rows, and a paired bootstrap gives its
standard error (about 0.5 points on 2,400 rows at 96 % agreement). A budget above zero is held against the loss itself,
not against the upper end of its interval: that would refuse nearly every variant on a dev split of this size, and the
lower end would pass losses of twice the budget. The interval stands beside the verdict. A budget of zero takes what
loses nothing measurable: at most one standard error. A budget between the two asks for more than dev can tell, which
the verdict says.

**Which one wins.** Of those that pass, the fastest at the shape that decides; within 5 % of it, which two runs would
not rank alike, the smallest of those that are within a standard error of the one that loses least; within 5 % of its
size, the one that loses least. Where a latency or a size is the limit the search is turned round: of those that keep
it, the best metric; within one standard error of that, the fastest.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from slipway.bundle import Variant
from slipway.errors import GateError
from slipway.recipe import Export

MAX_EXACT_DIFFERENCE = 1e-3
"""Largest difference of a logit that an fp32 graph may show against PyTorch; reordered sums explain about 1e-5."""

_EQUALLY_FAST = 1.05
_EQUALLY_LARGE = 1.05
_CLEARLY_FASTER = 1.2


@dataclass(frozen=True)
class _Objection:
    """Why a variant may not be promoted; `excess` is how far beyond the limit, as a share of it."""

    reason: str
    excess: float


def judge(variant: Variant, section: Export) -> Variant:
    """`variant` with `passed` and `verdict` filled in."""
    objections = _objections(variant, section)
    reasons = "; ".join(objection.reason for objection in objections)
    verdict = reasons or f"passes: {describe_loss(variant)}"
    return variant.model_copy(update={"passed": not objections, "verdict": verdict})


def choose(variants: list[Variant], section: Export) -> list[Variant]:
    """`variants`, judged, with the winner marked; the others that pass say what they lost to.

    Raises `GateError` that names the nearest one if none passes.
    """
    passing = [variant for variant in variants if variant.passed]
    if not passing:
        raise GateError(_nothing_passes(variants, section))
    best = _best(passing, section)

    def settle(variant: Variant) -> Variant:
        if variant is best:
            verdict = f"chosen: {_why(best, section)}{_on_single_texts(best, passing, section)}"
            return variant.model_copy(update={"chosen": True, "verdict": verdict})
        if variant.passed:
            return variant.model_copy(update={"verdict": f"passes, but {_worse(variant, best)}"})
        return variant

    return [settle(variant) for variant in variants]


def describe_loss(variant: Variant) -> str:
    """The loss, its interval and whether it is real, in words."""
    loss = variant.loss_points
    said = f"{'loses' if loss >= 0 else 'gains'} {abs(loss):.2f} points of {variant.metric}"
    if variant.loss_interval is None:
        return said
    low, high = variant.loss_interval
    real = "a real loss" if low > 0 else "not a measurable loss"
    return f"{said} (95 %: {low:.2f} to {high:.2f}; {real})"


def _objections(variant: Variant, section: Export) -> list[_Objection]:
    found = [*_lossy(variant, section), *_too_large(variant, section)]
    if variant.agreement < section.min_agreement:
        found.append(
            _Objection(
                f"agrees on {_beside(100 * variant.agreement, 100 * section.min_agreement, 1)}% of dev, at least "
                f"{section.min_agreement:.1%} is asked",
                section.min_agreement - variant.agreement,
            )
        )
    if variant.precision == "fp32" and variant.max_logit_difference > MAX_EXACT_DIFFERENCE:
        found.append(
            _Objection(
                f"logits differ by {variant.max_logit_difference:.2g} from PyTorch's, at most {MAX_EXACT_DIFFERENCE:g}",
                10.0,
            )
        )
    if section.target == "gpu" and variant.precision == "int8" and not variant.latency_ms:
        found.append(
            _Objection("is for TensorRT, which is not here to measure it; on a GPU without it, fp16 is faster", 1.0)
        )
    if variant.latency_ms and variant.speedup <= 1:
        found.append(_Objection(f"is not faster than PyTorch ({variant.speedup:.2f}×)", 1 - variant.speedup))
    return found


def _lossy(variant: Variant, section: Export) -> list[_Objection]:
    allowed = section.allowed_loss
    if allowed is None:
        return []
    error = variant.loss_error or 0.0
    limit = allowed or error
    if variant.seeds and (mean := float(np.mean([seed["loss_points"] for seed in variant.seeds]))) > limit:
        reason = f"loses {mean:.2f} points on the mean of {len(variant.seeds)} seeds"
        return [_Objection(f"{reason}, budget {allowed:g}", (mean - limit) / max(limit, 0.5))]
    if variant.loss_points <= limit:
        return []
    asked = f"budget {allowed:g}" if allowed else f"budget 0 takes at most one standard error, {error:.2f}"
    if 0 < allowed < error:
        asked += f", which is less than dev can tell (± {error:.2f})"
    return [_Objection(f"{describe_loss(variant)}, {asked}", (variant.loss_points - limit) / max(limit, 0.5))]


def _too_large(variant: Variant, section: Export) -> list[_Objection]:
    found = []
    latency, limit = variant.latency_ms.get("p50"), section.max_latency_ms
    if limit is not None:
        if latency is None:
            found.append(_Objection("was not measured on this target, so that no latency can be promised", 10.0))
        elif latency > limit:
            found.append(
                _Objection(
                    f"takes {_beside(latency, limit, 3, 'g')} ms at {section.at}, at most {limit:g} ms",
                    latency / limit - 1,
                )
            )
    size, most = variant.bytes / 1e6, section.max_size_mb
    if most is not None and size > most:
        found.append(_Objection(f"has {_beside(size, most, 1)} MB, at most {most:g} MB", size / most - 1))
    return found


def _beside(value: float, limit: float, digits: int, form: Literal["f", "g"] = "f") -> str:
    """`value` with `digits`, or as many more as it takes to differ from `limit`, which it misses."""
    texts = [f"{value:.{each}{form}}" for each in range(digits, 10)]
    return next((text for text in texts if float(text) != limit), texts[-1])


def _is_turned_round(section: Export) -> bool:
    return section.max_latency_ms is not None or section.max_size_mb is not None


def _pace(variant: Variant) -> float:
    """What "fastest" goes by: measured latency; where the target is not here, bytes, which bound it on a GPU."""
    return variant.latency_ms.get("p50", variant.bytes / 1e6)


def _best(passing: list[Variant], section: Export) -> Variant:
    def by_loss(variant: Variant) -> tuple[float, float, str]:
        return variant.loss_points, _pace(variant), variant.name

    if _is_turned_round(section):
        good = _as_good_as(min(passing, key=by_loss), passing)
        return min(good, key=lambda variant: (_pace(variant), variant.name))
    fastest = min(_pace(variant) for variant in passing)
    fast = [each for each in passing if _pace(each) <= fastest * _EQUALLY_FAST]
    good = _as_good_as(min(fast, key=by_loss), fast)
    smallest = min(each.bytes for each in good)
    return min((each for each in good if each.bytes <= smallest * _EQUALLY_LARGE), key=by_loss)


def _as_good_as(top: Variant, variants: list[Variant]) -> list[Variant]:
    """Those that lose at most a standard error more than `top`.

    Errors are of losses against the dense model. `top` may be that model in fp32, whose loss is 0 without an error, so
    the larger of the two counts.
    """
    return [
        each
        for each in variants
        if each.loss_points <= top.loss_points + max(top.loss_error or 0.0, each.loss_error or 0.0)
    ]


def _why(best: Variant, section: Export) -> str:
    if not _is_turned_round(section):
        return (
            "the fastest that passes" if best.latency_ms else "by rule, as speed can't be measured here: the smallest"
        )
    limits = [
        f"{section.max_latency_ms:g} ms at {section.at}" if section.max_latency_ms is not None else "",
        f"{section.max_size_mb:g} MB" if section.max_size_mb is not None else "",
    ]
    return f"the best within {' and '.join(filter(None, limits))}"


def _on_single_texts(best: Variant, passing: list[Variant], section: Export) -> str:
    """What a server of single texts of all lengths would rather take, which a fixed shape doesn't show."""
    measured = [each for each in passing if each.text_ms]
    if section.at == "texts" or _is_turned_round(section) or best not in measured:
        return ""
    fastest = min(measured, key=lambda each: (each.text_ms["p50"], each.name))
    ratio = best.text_ms["p50"] / fastest.text_ms["p50"]
    if ratio < _CLEARLY_FASTER:
        return ""
    return f"; of single texts of all lengths, {fastest.name} answers {ratio:.1f} times as many (--at texts)"


def _worse(variant: Variant, best: Variant) -> str:
    slower, larger = _pace(variant) / _pace(best), variant.bytes / best.bytes
    if variant.latency_ms and slower > _EQUALLY_FAST:
        return f"is {slower:.2f}× as slow as {best.name}"
    if variant.loss_points > best.loss_points:
        return f"loses {variant.loss_points - best.loss_points:.2f} points more than {best.name}"
    if larger > _EQUALLY_LARGE:
        return f"is {larger:.2f}× as large as {best.name}"
    return f"is no better than {best.name}"


def _nothing_passes(variants: list[Variant], section: Export) -> str:
    def distance(variant: Variant) -> float:
        return sum(objection.excess for objection in _objections(variant, section))

    nearest = min(variants, key=lambda variant: (distance(variant), variant.name))
    pace = f"{nearest.latency_ms['p50']:.3g} ms at {section.at}, " if nearest.latency_ms else ""
    return (
        f"no variant of {len(variants)} passes the gate, and no bundle was written. Nearest is {nearest.name} ({pace}"
        f"{nearest.bytes / 1e6:.1f} MB): it {nearest.verdict}. Relax that limit, or search more with --effort full."
    )
