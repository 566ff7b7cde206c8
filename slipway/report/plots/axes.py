"""What the figures share: latency axes in plain milliseconds, limits with their names, a legend above the frame, room
at the ends."""

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator

from slipway.report import formatting
from slipway.report.plots.svg import Ink

DASHES: Any = (0, (4, 3))
"""Line style of what is not a measurement: limits, the kept step."""


def latency_axis(axes: Any, axis: str, low: float, high: float, pad: float) -> tuple[float, float]:
    """A logarithmic axis in plain ms from `low` to `high` with some room, and ticks at round numbers."""
    span = max(high / low, 1.25)
    low, high = low / span**pad, max(high, low * 1.25) * span**pad
    steps: Sequence[float] = (1, 2, 5) if high / low > 12 else (1, 1.5, 2, 3, 4, 5, 7)
    if high / low > 2000:
        steps = (1,)
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [step * 10.0**decade for decade in decades for step in steps if low <= step * 10.0**decade <= high]
    if len(ticks) < 2:
        ticks = [float(f"{value:.2g}") for value in np.geomspace(low * 1.02, high / 1.02, 3)]
    side = axes.xaxis if axis == "x" else axes.yaxis
    (axes.set_xscale if axis == "x" else axes.set_yscale)("log")
    (axes.set_xlim if axis == "x" else axes.set_ylim)(low, high)
    side.set_major_locator(FixedLocator(ticks))
    side.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))
    side.set_minor_locator(NullLocator())
    side.set_minor_formatter(NullFormatter())
    return low, high


def remark(axes: Any, text: str, at: tuple[float, float], **placing: Any) -> None:
    """Small red words about a limit or a fault beside the point `at`; `placing` as for matplotlib's `annotate`."""
    axes.annotate(text, at, **{"textcoords": "offset points", "color": Ink.BAD, "fontsize": 8, "zorder": 6} | placing)


def limit_line(axes: Any, name: str, limit_ms: float, side: Literal["left", "right"]) -> None:
    """What the objective allows for the percentile `name`, across a y axis of latency, named at one end."""
    axes.axhline(limit_ms, color=Ink.BAD, linewidth=1.1, linestyle=DASHES, zorder=3)
    at, away = ((0, limit_ms), 3) if side == "left" else ((1, limit_ms), -2)
    remark(
        axes, limit_name(name, limit_ms), at, xycoords=("axes fraction", "data"), xytext=(away, 3), ha=side, va="bottom"
    )


def limit_name(name: str, limit_ms: float) -> str:
    """`SLO p99 ≤ 50 ms`."""
    return f"SLO {name} ≤ {formatting.compact(limit_ms)} ms"


def padded(values: Any, pad: float) -> tuple[float, float]:
    """Limits of an axis that leave the share `pad` of the range of `values` free at both ends."""
    low, high = (float(np.min(values)), float(np.max(values))) if len(values) else (0.0, 1.0)
    room = (high - low) * pad or max(abs(high) * pad, 0.01)
    return low - room, high + room


def legend(axes: Any) -> None:
    """The legend in one line above the frame, where it hides nothing; each name once."""
    handles, labels = axes.get_legend_handles_labels()
    once = dict(zip(labels, handles, strict=True))
    if once:
        axes.legend(
            once.values(),
            once.keys(),
            loc="lower left",
            bbox_to_anchor=(0, 1.01),
            ncols=len(once),
            labelcolor=Ink.MUTED,
        )
