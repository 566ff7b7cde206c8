"""What compression offers: the metric against the latency of every variant."""

import math
from collections.abc import Sequence
from typing import Any

from slipway.bundle import Variant
from slipway.report import formatting
from slipway.report.evidence import REFERENCE
from slipway.report.plots.axes import DASHES, latency_axis, legend, padded, remark
from slipway.report.plots.svg import Ink, canvas, to_svg

_MOST_NAMES = 10
"""With more variants than this, only those on the frontier that pass, the reference and the choice are named."""
_SIDES = (
    ("center", 0, 12),
    ("left", 10, 0),
    ("right", -10, 0),
    ("center", 0, -12),
    ("left", 8, 11),
    ("left", 8, -11),
    ("right", -8, 11),
    ("right", -8, -11),
)
"""Where a name may go beside its point, best first: alignment, and points to the right and up."""


def variants_plot(variants: Sequence[Variant], budget: float | None) -> str:
    """Metric on dev against latency: all variants, the frontier, the budget's floor and the choice."""
    shown = [variant for variant in variants if _is_placed(variant)]
    with canvas() as figure:
        axes = figure.subplots()
        points = [(variant.latency_ms["p50"], _dev_metric(variant)) for variant in shown]
        frontier = pareto_frontier(points)
        if len(frontier) > 1:
            axes.plot(
                *zip(*frontier, strict=True),
                color=Ink.FIRST,
                alpha=0.45,
                drawstyle="steps-post",
                linewidth=1.3,
                label="frontier",
                zorder=2,
            )
        for variant, (x, y) in zip(shown, points, strict=True):
            axes.plot([x], [y], linestyle="none", zorder=4, **_variant_mark(variant))
        reference = next((variant for variant in shown if variant.name == REFERENCE), None)
        levels = [y for _, y in points]
        if reference and budget is not None:
            floor = _dev_metric(reference) - budget / 100
            levels.append(floor)
            unit = "point" if budget == 1 else "points"
            axes.axhline(floor, color=Ink.BAD, linewidth=1.1, linestyle=DASHES, zorder=1)
            said = f"floor: {formatting.compact(budget)} {unit} below {REFERENCE}"
            remark(axes, said, (1, floor), xycoords=("axes fraction", "data"), xytext=(-2, -4), ha="right", va="top")
        axes.set_ylim(*padded(levels, 0.22))
        times = [x for x, _ in points]
        latency_axis(axes, "x", min(times, default=1.0), max(times, default=1.0), pad=0.16)
        axes.grid(visible=True, axis="x")
        axes.set_xlabel("latency, p50, ms")
        metric = shown[0].metric if shown else ""
        axes.set_ylabel(f"{formatting.metric_name(metric)} on dev")
        named = [
            (variant.name, x, y)
            for variant, (x, y) in zip(shown, points, strict=True)
            if len(shown) <= _MOST_NAMES or _is_named(variant, (x, y) in frontier)
        ]
        _place_names(figure, axes, named)
        legend(axes)
        return to_svg(figure, "variants", "Metric on dev against latency of every variant; the chosen one is a star")


def _is_named(variant: Variant, on_frontier: bool) -> bool:
    """Whether a variant among many has its name beside its point."""
    return variant.chosen or variant.name == REFERENCE or (variant.passed and on_frontier)


def pareto_frontier(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The (latency, metric) points that no other beats in both, from fast to slow."""
    frontier: list[tuple[float, float]] = []
    for latency, metric in sorted(points, key=lambda point: (point[0], -point[1])):
        if not frontier or metric > frontier[-1][1]:
            frontier.append((latency, metric))
    return frontier


def _dev_metric(variant: Variant) -> float:
    value = variant.dev.get(variant.metric)
    return float(value) if isinstance(value, (int, float)) else math.nan


def _is_placed(variant: Variant) -> bool:
    return math.isfinite(_dev_metric(variant)) and variant.latency_ms.get("p50", 0.0) > 0


def _variant_mark(variant: Variant) -> dict[str, Any]:
    """Shape and filling tell the state, so that colour need not."""
    if variant.chosen:
        return {
            "marker": "*",
            "markersize": 15,
            "color": Ink.GOOD,
            "markeredgecolor": Ink.PAPER,
            "label": "chosen",
        }
    if variant.name == REFERENCE:
        return {"marker": "s", "markersize": 7, "color": Ink.TEXT, "label": "reference"}
    if variant.passed:
        return {"marker": "o", "markersize": 7, "color": Ink.FIRST, "label": "passed"}
    return {"marker": "x", "markersize": 7, "color": Ink.BAD, "markeredgewidth": 2, "label": "refused"}


def _place_names(figure: Any, axes: Any, named: Sequence[tuple[str, float, float]]) -> None:
    """Write each name beside its point, at the first side where it meets neither a point nor another name.

    Names stay in the frame, beyond which are the legend and the next figure; only the right edge has a little room.
    Where no side is free, the one is taken that covers least.
    """
    figure.canvas.draw()
    to_points = 72 / figure.dpi
    frame = axes.get_window_extent()
    inside = (frame.x0 * to_points, frame.y0 * to_points, frame.x1 * to_points + 12, frame.y1 * to_points)
    anchors = [tuple(to_points * value for value in axes.transData.transform((x, y))) for _, x, y in named]
    taken = [(px - 5, py - 5, px + 5, py + 5) for px, py in anchors]
    for (name, x, y), (px, py) in zip(named, anchors, strict=True):
        width, height = 5.4 * len(name), 9.0
        found = []
        for align, dx, dy in _SIDES:
            left = px + dx - {"left": 0.0, "center": width / 2, "right": width}[align]
            area = (left, py + dy - height / 2, left + width, py + dy + height / 2)
            covered = sum(_shared(area, other) for other in taken) + width * height - _shared(area, inside)
            found.append((covered, area, (align, dx, dy)))
            if not covered:
                break
        _, area, (align, dx, dy) = min(found, key=lambda one: one[0])
        taken.append(area)
        axes.annotate(
            name,
            (x, y),
            xytext=(dx, dy),
            textcoords="offset points",
            ha=align,
            va="center",
            color=Ink.TEXT,
            zorder=6,
        )


def _shared(one: Sequence[float], other: Sequence[float]) -> float:
    """The area that two rectangles (left, lower, right, upper) have in common."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return max(width, 0.0) * max(height, 0.0)
