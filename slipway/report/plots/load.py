"""How the endpoint held: latency over the time of the test, and its distribution."""

import math
from typing import Any

import numpy as np

from slipway.report import formatting
from slipway.report.evidence import BoolArray, FloatArray, Load, Samples
from slipway.report.plots.axes import DASHES, latency_axis, legend, padded
from slipway.report.plots.svg import Ink, canvas, to_svg

_MOST_POINTS = 2000
_MOST_FAILURES = 800
_SLOWEST_KEPT = 200

_PROTOCOL_INKS = (Ink.FIRST, Ink.SECOND, Ink.GOOD)
_FAILURE_MARKS = {"wrong": "D", "error": "x", "timeout": "^"}


def latency_over_time(load: Load, samples: Samples) -> str:
    """Requests (or a fair sample) at their scheduled times, rolling percentiles, failures, the objective."""
    with canvas() as figure:
        axes = figure.subplots()
        measured = samples.where(~samples.warmup)
        if samples.warmup.any():
            start = float(samples.scheduled_s[samples.warmup].min())
            axes.axvspan(start, 0, color=Ink.SHADE, linewidth=0, zorder=0)
        good = samples.where(samples.outcome == "ok")
        shown = good.where(representative(good.latency_ms))
        _dots(axes, shown.scheduled_s, shown.latency_ms, Ink.MUTED)
        for name, mark in _FAILURE_MARKS.items():
            failed = samples.where(samples.outcome == name)
            if len(failed):
                kept = failed.where(_evenly(len(failed), _MOST_FAILURES))
                axes.plot(
                    kept.scheduled_s,
                    kept.latency_ms,
                    linestyle="none",
                    marker=mark,
                    markersize=4.5,
                    markeredgecolor=Ink.BAD,
                    markeredgewidth=1.2,
                    markerfacecolor="none",
                    label=name,
                    zorder=5,
                )
        for percentile, ink in ((95, Ink.SECOND), (50, Ink.FIRST)):
            times, values = rolling_percentile(measured, percentile)
            if len(times) > 1:
                axes.plot(times, values, color=ink, label=f"p{percentile}, rolling", zorder=4)
        _objective_lines(axes, load, "y")
        _time_limits(axes, samples)
        _latency_limits(axes, "y", samples, load)
        axes.set_xlabel("scheduled, s after the start of the measured window")
        axes.set_ylabel("latency, ms")
        legend(axes)
        return to_svg(figure, "time", "Latency of the requests over the time of the load test")


def latency_distribution(load: Load, samples: Samples) -> str:
    """Histogram over log latency for each protocol, with the percentiles of all and the objective."""
    with canvas() as figure:
        axes = figure.subplots()
        measured = samples.where(~samples.warmup)
        low, high = _latency_limits(axes, "x", samples, load)
        bins = np.geomspace(low, high, int(np.clip(4 * math.sqrt(len(measured)), 12, 70)) + 1)
        for protocol, ink in zip(sorted(set(measured.protocol)), _PROTOCOL_INKS, strict=False):
            chosen = measured.latency_ms[measured.protocol == protocol]
            share = np.histogram(np.clip(chosen, low, high), bins)[0] / max(len(chosen), 1)
            axes.stairs(100 * share, bins, fill=True, color=ink, alpha=0.22, linewidth=0)
            axes.stairs(100 * share, bins, color=ink, linewidth=1.4, label=str(protocol))
        axes.set_ylim(0, max(axes.get_ylim()[1], 1) * 1.38)
        if axes.get_ylim()[1] > 100:
            axes.set_yticks(range(0, 101, 20))
        _flags(axes, load)
        axes.set_xlabel("latency, ms (logarithmic)")
        axes.set_ylabel("share of the protocol's requests, %")
        legend(axes)
        return to_svg(figure, "distribution", "Distribution of latency by protocol, with percentiles and the objective")


def rolling_percentile(samples: Samples, percentile: float) -> tuple[FloatArray, FloatArray]:
    """Percentile of latency in consecutive windows of equal length, at least about 40 requests each.

    Returns the middles of the windows in s and the percentile of each in ms.
    """
    if len(samples) < 2:
        return np.zeros(0), np.zeros(0)
    windows = int(np.clip(len(samples) // 40, 1, 80))
    edges = np.linspace(0, max(float(samples.scheduled_s.max()), 1e-9), windows + 1)
    inside = np.clip(np.searchsorted(edges, samples.scheduled_s, side="right") - 1, 0, windows - 1)
    filled = [i for i in range(windows) if (inside == i).any()]
    values = [float(np.percentile(samples.latency_ms[inside == i], percentile)) for i in filled]
    middles = (edges[:-1] + edges[1:]) / 2
    return middles[filled], np.array(values)


def representative(latency_ms: FloatArray) -> BoolArray:
    """Mask `[n]` of the points to draw: an even sample, and the slowest, which are what one looks for."""
    mask = _evenly(len(latency_ms), _MOST_POINTS)
    if not mask.all():
        mask[np.argsort(-latency_ms, kind="stable")[:_SLOWEST_KEPT]] = True
    return mask


def _evenly(count: int, most: int) -> BoolArray:
    mask = np.zeros(count, dtype=bool)
    mask[np.linspace(0, max(count - 1, 0), min(count, most)).astype(int)] = True
    return mask


def _dots(axes: Any, x: FloatArray, y: FloatArray, ink: str) -> None:
    """Points as one path of zero-length strokes with round ends: a quarter of the bytes of elements."""
    gap = np.full_like(x, np.nan)
    axes.plot(
        np.column_stack([x, x, gap]).ravel(),
        np.column_stack([y, y, gap]).ravel(),
        color=ink,
        alpha=0.4 if len(x) > 100 else 0.8,
        linewidth=2.6 if len(x) > 100 else 5,
        solid_capstyle="round",
        zorder=2,
    )


def _objective_lines(axes: Any, load: Load, axis: str) -> None:
    for name, limit in load.latency_objectives.items():
        draw = axes.axhline if axis == "y" else axes.axvline
        draw(limit, color=Ink.BAD, linewidth=1.1, linestyle=DASHES, zorder=3)
        axes.annotate(
            f"SLO {name} ≤ {formatting.compact(limit)} ms",
            (1, limit),
            xycoords=("axes fraction", "data"),
            xytext=(-2, 3),
            textcoords="offset points",
            ha="right",
            va="bottom",
            color=Ink.BAD,
            fontsize=8,
        )


def _flags(axes: Any, load: Load) -> None:
    """A line at each percentile and at the objective, named beside its top.

    A name in the right part is written to the left of its line, and has to pass above what it crosses. So
    heights fall from the rightmost to the first of those, and on from the leftmost of the others.
    """
    latency = load.verdict.latency
    flags = [
        (value, f"{name} {formatting.milliseconds(value)} ms", Ink.TEXT, "-")
        for name, value in (("p50", latency.p50), ("p95", latency.p95), ("p99", latency.p99))
    ]
    limits = load.latency_objectives
    if limits:
        name, limit = max(limits.items(), key=lambda item: item[1])
        flags.append((limit, f"SLO {name} ≤ {formatting.compact(limit)} ms", Ink.BAD, DASHES))
    low, high = axes.get_xlim()
    turn = low * (high / low) ** 0.7
    to_left = sorted((flag for flag in flags if turn < flag[0] <= high), reverse=True)
    to_right = sorted(flag for flag in flags if low <= flag[0] <= turn)
    for row, (x, text, ink, line) in enumerate(to_left + to_right):
        height, left = 0.985 - 0.075 * row, row < len(to_left)
        axes.axvline(x, ymax=height, color=ink, linewidth=1.0, linestyle=line, zorder=4)
        axes.annotate(
            text,
            (x, height),
            xycoords=("data", "axes fraction"),
            xytext=(-4 if left else 4, -1),
            textcoords="offset points",
            ha="right" if left else "left",
            va="top",
            color=ink,
            fontsize=8,
            zorder=6,
        )


def _time_limits(axes: Any, samples: Samples) -> None:
    low, high = padded(samples.scheduled_s, 0.015)
    axes.set_xlim(low, high)


def _latency_limits(axes: Any, axis: str, samples: Samples, load: Load) -> tuple[float, float]:
    values = samples.latency_ms[samples.latency_ms > 0]
    ends = [
        *load.latency_objectives.values(),
        *([float(values.min()), float(values.max())] if len(values) else []),
    ]
    return latency_axis(axes, axis, min(ends, default=1.0), max(ends, default=1.0), pad=0.06)
