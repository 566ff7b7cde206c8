"""The story of a load test: what a `slipway.timeline.Timeline` shows, one figure a question."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np
from matplotlib.ticker import FixedLocator, MaxNLocator

from slipway.report import formatting
from slipway.report.plots.axes import DASHES, latency_axis, legend, limit_line, limit_name, remark
from slipway.report.plots.svg import Ink, canvas, to_svg
from slipway.timeline import FaultRecord, Reading, Timeline, Window

_MARKS = {"wrong": "D", "error": "x", "timeout": "^"}
_FAILURE_INKS = {"error": Ink.BAD, "timeout": Ink.SECOND, "wrong": Ink.FIRST}

Limits = Mapping[str, float]
"""Percentile → ms, see `Verdict.latency_limits`."""


def latency_over_time(timeline: Timeline, limits: Limits) -> str:
    """Requests at their scheduled times, percentiles of windows, failures, the objective, faults."""
    with canvas() as figure:
        axes = figure.subplots()
        _when(axes, timeline)
        good = [dot for dot in timeline.dots if dot.outcome == "ok"]
        _dots(axes, [dot.at_s for dot in good], [dot.latency_ms for dot in good])
        for outcome, dots in groupby(sorted(timeline.dots, key=lambda dot: dot.outcome), key=lambda dot: dot.outcome):
            if outcome != "ok":
                failed = list(dots)
                axes.plot(
                    [dot.at_s for dot in failed],
                    [dot.latency_ms for dot in failed],
                    linestyle="none",
                    marker=_MARKS.get(outcome, "s"),
                    markersize=4,
                    markeredgecolor=Ink.BAD,
                    markerfacecolor="none",
                    markeredgewidth=1.1,
                    label=outcome,
                    zorder=5,
                )
        full = [window for window in timeline.windows if window.p50_ms is not None]
        for name, ink in (("p99", Ink.SECOND), ("p50", Ink.FIRST)):
            axes.plot(
                _middles(full), [getattr(window, f"{name}_ms") for window in full], color=ink, label=name, zorder=4
            )
        for name, limit in limits.items():
            limit_line(axes, name, limit, "right")
        values = [dot.latency_ms for dot in timeline.dots if dot.latency_ms > 0] + list(limits.values())
        latency_axis(axes, "y", min(values, default=1.0), max(values, default=1.0), pad=0.06)
        axes.set_ylabel("latency, ms (logarithmic)")
        legend(axes)
        return to_svg(figure, "latency", "Latency of the requests over the time of the load test")


def percentile_plot(timeline: Timeline, limits: Limits) -> str:
    """Latency by percentile, the axis stretched towards 100 %: each tick is ten times as rare as the one before."""
    with canvas() as figure:
        axes = figure.subplots()
        points = timeline.percentiles
        rarity = [1 / (1 - point.quantile) for point in points]
        service = [point.service_ms for point in points]
        latency = [point.latency_ms for point in points]
        axes.plot(rarity, service, color=Ink.MUTED, linewidth=1.2, label="from sending")
        axes.plot(rarity, latency, color=Ink.FIRST, label="from the scheduled arrival")
        axes.set_xscale("log")
        most = max(rarity, default=10.0)
        ticks = [(1.0, "0"), (2.0, "50"), (10.0, "90"), (100.0, "99"), (1e3, "99.9"), (1e4, "99.99"), (1e5, "99.999")]
        shown = [(x, text) for x, text in ticks if x <= most * 1.3]
        axes.set_xticks([x for x, _ in shown], [text for _, text in shown])
        axes.xaxis.set_minor_locator(FixedLocator([]))
        axes.set_xlim(1, most * 1.35)
        for name, limit in limits.items():
            at = 1 / (1 - float(name.removeprefix("p")) / 100)
            axes.plot([at / 1.3, at * 1.3], [limit, limit], color=Ink.BAD, linewidth=2.2, zorder=5)
            align = "right" if at > 3 else "left"
            remark(axes, limit_name(name, limit), (at / 1.3, limit), xytext=(-3, 3), ha=align, va="bottom")
        values = [value for value in (*service, *latency, *limits.values()) if value > 0]
        latency_axis(axes, "y", min(values, default=1.0), max(values, default=1.0), pad=0.06)
        axes.grid(visible=True, axis="x")
        axes.set_xlabel("percentile, % (the last point is the slowest request)")
        axes.set_ylabel("latency, ms (logarithmic)")
        legend(axes)
        return to_svg(figure, "percentiles", "Latency by percentile, on an axis stretched towards 100 %")


def distribution(timeline: Timeline, limits: Limits) -> str:
    """How many requests took how long; both axes logarithmic, so that a handful of slow ones is seen."""
    with canvas() as figure:
        axes = figure.subplots()
        bins = timeline.histogram
        if bins:
            edges = [*(each.low_ms for each in bins), bins[-1].high_ms]
            counts = [max(each.count, 0.5) for each in bins]
            axes.stairs(counts, edges, fill=True, color=Ink.FIRST, alpha=0.3, linewidth=0, baseline=0.5)
            axes.stairs(counts, edges, color=Ink.FIRST, linewidth=1.3, baseline=0.5)
            axes.set_yscale("log")
            axes.set_ylim(0.5, max(counts) * 3)
            axes.yaxis.set_minor_locator(FixedLocator([]))
            ticks = [10.0**power for power in range(8) if 10.0**power <= max(counts) * 3]
            axes.set_yticks(ticks, [formatting.whole(tick) for tick in ticks])
            ends = [edges[0], edges[-1], *limits.values()]
            latency_axis(axes, "x", min(ends), max(ends), pad=0.04)
        for row, (name, limit) in enumerate(sorted(limits.items(), key=lambda item: item[1])):
            axes.axvline(limit, color=Ink.BAD, linewidth=1.1, linestyle=DASHES)
            at = (limit, 0.97 - 0.08 * row)
            remark(axes, f"SLO {name}", at, xycoords=("data", "axes fraction"), xytext=(4, 0), va="top")
        axes.set_xlabel("latency, ms (logarithmic)")
        axes.set_ylabel("requests (logarithmic)")
        return to_svg(figure, "distribution", "Distribution of latency, both axes logarithmic")


def throughput(timeline: Timeline) -> str:
    """Requests/s that were offered and that were answered correctly; below it, how late the generator was."""
    with canvas() as figure:
        top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
        _when(top, timeline)
        windows = timeline.windows
        edges = [*(window.start_s for window in windows), windows[-1].end_s] if windows else [0.0, 1.0]
        spans = [window.end_s - window.start_s for window in windows]
        offered = [window.scheduled / span for window, span in zip(windows, spans, strict=True)]
        served = [window.served / span for window, span in zip(windows, spans, strict=True)]
        top.stairs(offered, edges, color=Ink.MUTED, linewidth=1.2, label="offered", baseline=None)
        top.stairs(served, edges, fill=True, color=Ink.FIRST, alpha=0.22, linewidth=0)
        top.stairs(served, edges, color=Ink.FIRST, linewidth=1.5, label="answered correctly", baseline=None)
        top.set_ylim(0, max([*offered, *served, 1e-9]) * 1.1)
        top.set_xlabel("")
        top.set_ylabel("requests/s")
        lag = [window.lag_p99_ms or 0.0 for window in windows]
        bottom.stairs(lag, edges, fill=True, color=Ink.MUTED, alpha=0.35, linewidth=0)
        bottom.set_ylim(0, max([*lag, 0.1]) * 1.2)
        bottom.yaxis.set_major_locator(MaxNLocator(2))
        bottom.set_xlabel("s  (lower panel: the generator's own delay, p99, ms)")
        legend(top)
        return to_svg(figure, "throughput", "Requests a second, offered and answered correctly, over time")


def failures_over_time(timeline: Timeline) -> str:
    """Failures of each window, by kind, on top of each other."""
    with canvas() as figure:
        axes = figure.subplots()
        _when(axes, timeline)
        windows = timeline.windows
        kinds = sorted({kind for window in windows for kind in window.failures})
        base = np.zeros(len(windows))
        for kind in kinds:
            counts = np.array([window.failures.get(kind, 0) for window in windows], dtype=float)
            axes.bar(
                [window.start_s for window in windows],
                counts,
                [window.end_s - window.start_s for window in windows],
                bottom=base,
                align="edge",
                color=_FAILURE_INKS.get(kind, Ink.MUTED),
                linewidth=0,
                label=kind,
            )
            base += counts
        axes.set_ylim(0, max(float(base.max(initial=0)), 1) * 1.15)
        axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.set_ylabel("failed requests a window")
        legend(axes)
        return to_svg(figure, "failures", "Failed requests over time, by kind")


def work_over_time(timeline: Timeline) -> str:
    """Where a request's time goes inside Triton: waiting and computing, means between two readings."""
    with canvas() as figure:
        axes = figure.subplots()
        _when(axes, timeline)
        found = [(reading.at_s, reading.work) for reading in _measured(timeline) if reading.work]
        at = [at for at, _ in found]
        axes.stackplot(
            at,
            [work.compute_ms for _, work in found],
            [work.queue_ms for _, work in found],
            colors=(Ink.FIRST, Ink.SECOND),
            alpha=0.55,
            linewidth=0,
            labels=("compute", "queue"),
        )
        axes.set_ylim(bottom=0)
        axes.set_ylabel("ms a request, mean")
        legend(axes)
        return to_svg(figure, "work", "Time in Triton's queue and in computing, over time")


def server_over_time(timeline: Timeline) -> str:
    """Processor and memory of the server's processes."""
    with canvas() as figure:
        top, bottom = figure.subplots(2, 1, sharex=True)
        _when(top, timeline)
        found = [(reading.at_s, reading.usage) for reading in _measured(timeline) if reading.usage]
        at = [at for at, _ in found]
        top.plot(at, [usage.cpu_cores for _, usage in found], color=Ink.FIRST, label="server")
        top.plot(at, [usage.generator_cores for _, usage in found], color=Ink.SECOND, linewidth=1.1, label="generator")
        top.plot(at, [usage.other_cores for _, usage in found], color=Ink.MUTED, linewidth=0.9, label="others")
        cores = found[0][1].cores if found else 1
        top.axhline(cores, color=Ink.MUTED, linewidth=0.9, linestyle=DASHES)
        top.set_ylim(0, cores * 1.15)
        top.set_ylabel("cores")
        top.set_xlabel("")
        memory = [usage.rss_mb for _, usage in found]
        bottom.plot(at, memory, color=Ink.SECOND)
        bottom.set_ylim(0, max([*memory, 1.0]) * 1.2)
        bottom.set_ylabel("memory, MB")
        bottom.set_xlabel("s after the start of the measured window")
        legend(top)
        return to_svg(figure, "server", "Processor cores and memory that the server's processes took, over time")


def _measured(timeline: Timeline) -> Sequence[Reading]:
    return [reading for reading in timeline.readings if -timeline.warmup_s <= reading.at_s <= timeline.duration_s]


def _when(axes: Any, timeline: Timeline) -> None:
    """The time axis of a run, with its warm-up and its faults."""
    room = 0.015 * (timeline.duration_s + timeline.warmup_s)
    axes.set_xlim(-timeline.warmup_s - room, timeline.duration_s + room)
    if timeline.warmup_s:
        axes.axvspan(-timeline.warmup_s, 0, color=Ink.SHADE, linewidth=0, zorder=0)
    for number, fault in enumerate(timeline.faults, 1):
        _fault(axes, number, fault, timeline.duration_s)
    axes.set_xlabel("scheduled, s after the start of the measured window")


def _fault(axes: Any, number: int, fault: FaultRecord, end_s: float) -> None:
    until = end_s if fault.recovered_s is None else max(fault.recovered_s, fault.ended_s)
    axes.axvspan(fault.began_s, until, color=Ink.BAD, alpha=0.1, linewidth=0, zorder=0)
    axes.axvline(fault.began_s, color=Ink.BAD, linewidth=0.9, zorder=1)
    remark(axes, str(number), (fault.began_s, 1), xycoords=("data", "axes fraction"), xytext=(2, -2), va="top")


def _middles(windows: Sequence[Window]) -> list[float]:
    return [(window.start_s + window.end_s) / 2 for window in windows]


def _dots(axes: Any, x: Sequence[float], y: Sequence[float]) -> None:
    """Points as one path of zero-length strokes with round ends: a quarter of the bytes of elements."""
    gap = np.full(len(x), np.nan)
    axes.plot(
        np.column_stack([x, x, gap]).ravel(),
        np.column_stack([y, y, gap]).ravel(),
        color=Ink.MUTED,
        alpha=0.4,
        linewidth=2.4,
        solid_capstyle="round",
        zorder=2,
    )
