"""How a fine-tuning went: loss and learning rate, scores on dev and the step that was kept."""

import math

import numpy as np

from slipway.report import formatting
from slipway.report.evidence import FloatArray, History
from slipway.report.plots.axes import DASHES, legend
from slipway.report.plots.svg import Ink, canvas, to_svg

_MOST_LOSSES = 800


def loss_curve(history: History) -> str:
    """Training loss, raw and smoothed, dev loss, and below them the learning rate."""
    with canvas() as figure:
        top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(5, 1))
        finite = np.isfinite(history.losses)
        steps, losses = history.steps[finite], history.losses[finite]
        every = max(1, math.ceil(len(steps) / _MOST_LOSSES))
        if len(steps):
            smoothed = exponential_average(losses, span=max(3.0, len(losses) / 25))
            top.plot(steps[::every], losses[::every], color=Ink.FIRST, alpha=0.28, linewidth=0.8)
            top.plot(steps[::every], smoothed[::every], color=Ink.FIRST, label="training, smoothed")
        evaluated = [(row.step, row.loss) for row in history.evaluations if math.isfinite(row.loss)]
        if evaluated:
            top.plot(*zip(*evaluated, strict=True), color=Ink.SECOND, marker="o", markersize=3.5, label="dev")
        top.set_ylabel("cross-entropy")
        legend(top)
        rated = np.isfinite(history.rates)
        if rated.any():
            x, rates = history.steps[rated], history.rates[rated]
            bottom.fill_between(x[::every], 0, rates[::every], color=Ink.MUTED, alpha=0.25, linewidth=0)
            bottom.plot(x[::every], rates[::every], color=Ink.MUTED, linewidth=0.9)
            peak = float(rates.max())
            bottom.set_yticks([0, peak], ["0", formatting.compact(float(f"{peak:.3g}"))])
            bottom.set_ylim(0, (peak or 1.0) * 1.25)
        bottom.set_xlabel("step  (lower panel: learning rate)")
        return to_svg(figure, "loss", "Training and dev loss over the steps of fine-tuning, with the learning rate")


def dev_curve(history: History) -> str:
    """Dev metrics at each evaluation, the kept one marked."""
    with canvas() as figure:
        axes = figure.subplots()
        names = [name for name in ("accuracy", "macro_f1", "mcc") if _scores(history, name)]
        names.sort(key=lambda name: name != history.metric)
        for name, ink in zip(names[:2], (Ink.FIRST, Ink.SECOND), strict=False):
            axes.plot(
                *zip(*_scores(history, name), strict=True),
                color=ink,
                marker="o",
                markersize=3.5,
                label=formatting.metric_name(name),
            )
        best = history.best
        value = best.scores.get(history.metric, math.nan) if best else math.nan
        if best and math.isfinite(value):
            axes.axvline(best.step, color=Ink.MUTED, linewidth=0.9, linestyle=DASHES)
            axes.plot(
                [best.step],
                [value],
                linestyle="none",
                marker="*",
                markersize=13,
                markerfacecolor=Ink.FIRST,
                markeredgecolor=Ink.PAPER,
                label=f"kept: step {best.step:,}, {value:.3f}",
            )
        axes.margins(y=0.12)
        axes.set_xlabel("step")
        axes.set_ylabel("score on dev")
        legend(axes)
        return to_svg(figure, "dev", "Scores on the dev split over the steps of fine-tuning, the kept step marked")


def exponential_average(values: FloatArray, span: float) -> FloatArray:
    """Exponential moving average of `values` `[n]`, corrected for its start."""
    decay = 1 - 2 / (span + 1)
    smoothed = np.empty_like(values)
    total = weight = 0.0
    for i, value in enumerate(values):
        total = decay * total + (1 - decay) * value
        weight = decay * weight + (1 - decay)
        smoothed[i] = total / weight
    return smoothed


def _scores(history: History, name: str) -> list[tuple[int, float]]:
    rows = ((row.step, row.scores.get(name, math.nan)) for row in history.evaluations)
    return [(step, value) for step, value in rows if math.isfinite(value)]
