"""The picture of a plan: the traffic and what each policy made of it, over time."""

from typing import Any

import numpy as np

from autoscaling.plan import Plan
from slipway.report.plots.axes import DASHES, legend
from slipway.report.plots.svg import Ink, canvas, to_svg

_INKS = (Ink.FIRST, Ink.SECOND, Ink.GOOD)
_MOST_POINTS = 600


def plan_plot(plan: Plan) -> str:
    """Replicas of each policy above, the share of late and refused requests below; one `<svg>` element."""
    with canvas() as figure:
        figure.set_size_inches(7.2, 4.6)
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
        hours = len(plan.traffic) / 3600
        unit, per_s = ("h", 1 / 3600) if hours > 1.5 else ("min", 1 / 60)
        needed = _binned([moment.rate / plan.capacity for moment in plan.chosen.moments])
        times = np.linspace(0, len(plan.traffic) * per_s, len(needed))
        above.fill_between(times, 0, needed, color=Ink.SHADE, linewidth=0, label="what the rate keeps busy")
        for outcome, ink in zip(plan.outcomes[:3], _INKS, strict=False):
            above.step(times, _binned([moment.asked for moment in outcome.moments]), color=ink, label=outcome.policy)
            late = _binned([100 * moment.late for moment in outcome.moments])
            below.plot(times, late, color=ink)
        below.axhline(100 - plan.objective.percent, color=Ink.MUTED, linestyle=DASHES, linewidth=1)
        above.set_ylabel("replicas")
        above.set_ylim(0, None)
        below.set_ylabel(f"% later than {plan.objective.latency_ms:g} ms")
        below.set_ylim(0, None)
        below.set_xlabel(f"time, {unit}")
        legend(above)
        return to_svg(
            figure, "plan", f"Replicas under {plan.traffic.name} traffic, and requests that miss the objective"
        )


def _binned(values: list[float]) -> Any:
    """The largest of each of some hundred bins: a short breach must not disappear in an average."""
    every = max(1, len(values) // _MOST_POINTS)
    return np.array([max(values[start : start + every]) for start in range(0, len(values), every)])
