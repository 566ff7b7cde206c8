"""How an endpoint bends: latency against the rate that is offered, and what the machine gives at each."""

import math
from collections.abc import Sequence
from typing import Any

from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from slipway.capacity import Answer, Capacity, Probe
from slipway.report.plots.axes import DASHES, latency_axis, legend, limit_line
from slipway.report.plots.svg import Ink, canvas, to_svg
from slipway.verdict import PERCENTILES

_MARKS: dict[Answer, dict[str, Any]] = {
    "met": {"marker": "o", "color": Ink.GOOD, "label": "met"},
    "missed": {"marker": "x", "color": Ink.BAD, "markeredgewidth": 1.8, "label": "missed"},
    "invalid": {"marker": "s", "color": Ink.MUTED, "markerfacecolor": "none", "label": "invalid"},
}


def latency_against_rate(capacity: Capacity) -> str:
    """p50 and p99 of every probe, the objective, and the interval of the capacity."""
    with canvas() as figure:
        axes = figure.subplots()
        probes = sorted(capacity.probes, key=lambda probe: probe.rate)
        _rates(axes, capacity, probes)
        valid = [probe for probe in probes if probe.answer != "invalid"]
        for name, ink in (("p50", Ink.FIRST), ("p99", Ink.SECOND)):
            means = _means(valid, name)
            axes.plot(*zip(*means, strict=True), color=ink, linewidth=1.3, alpha=0.8, label=name, zorder=2)
        for probe in probes:
            for value in (probe.latency.p50, probe.latency.p99):
                axes.plot([probe.rate], [value], linestyle="none", markersize=5, zorder=4, **_MARKS[probe.answer])
        limits = {PERCENTILES[name]: limit for name, limit in capacity.slo.items() if name in PERCENTILES}
        for name, limit in limits.items():
            limit_line(axes, name, limit, "left")
        values = [value for probe in probes for value in (probe.latency.p50, probe.latency.p99) if value > 0]
        values += list(limits.values())
        latency_axis(axes, "y", min(values, default=1.0), max(values, default=1.0), pad=0.06)
        axes.set_ylabel("latency, ms (logarithmic)")
        legend(axes)
        return to_svg(
            figure, "rate", "p50 and p99 of every probe against the offered rate, with the capacity's interval"
        )


def machine_against_rate(capacity: Capacity) -> str:
    """Cores that the server and the generator took at each rate, and those that there are."""
    with canvas() as figure:
        axes = figure.subplots()
        probes = sorted((probe for probe in capacity.probes if probe.usage), key=lambda probe: probe.rate)
        _rates(axes, capacity, probes)
        usages = [probe.usage for probe in probes if probe.usage]
        _series(axes, probes, [usage.cpu_cores for usage in usages], Ink.FIRST, "server")
        _series(axes, probes, [usage.generator_cores for usage in usages], Ink.SECOND, "generator")
        _series(axes, probes, [usage.other_cores for usage in usages], Ink.MUTED, "others")
        cores = max((usage.cores for usage in usages), default=1)
        axes.axhline(cores, color=Ink.BAD, linewidth=1.1, linestyle=DASHES, label="of the machine")
        axes.set_ylim(0, cores * 1.12)
        axes.set_ylabel("processor cores")
        legend(axes)
        return to_svg(figure, "machine", "Processor cores that server and generator took, against the offered rate")


def work_against_rate(capacity: Capacity) -> str:
    """Time in Triton's queue and in computing a request, at each rate."""
    with canvas() as figure:
        axes = figure.subplots()
        probes = sorted((probe for probe in capacity.probes if probe.work), key=lambda probe: probe.rate)
        _rates(axes, capacity, probes)
        queue = [max(probe.work.queue_ms, 0.01) for probe in probes if probe.work]
        compute = [max(probe.work.compute_ms, 0.01) for probe in probes if probe.work]
        _series(axes, probes, queue, Ink.SECOND, "queue")
        _series(axes, probes, compute, Ink.FIRST, "compute")
        latency_axis(axes, "y", min([*queue, *compute]), max([*queue, *compute]), pad=0.06)
        axes.set_ylabel("ms a request, mean (logarithmic)")
        legend(axes)
        return to_svg(figure, "work", "Time in Triton's queue and in computing a request, against the offered rate")


def _series(axes: Any, probes: Sequence[Probe], values: Sequence[float], ink: str, label: str) -> None:
    axes.plot([probe.rate for probe in probes], values, color=ink, marker="o", markersize=3.5, label=label)


def _rates(axes: Any, capacity: Capacity, probes: Sequence[Probe]) -> None:
    """The axis of rates, and the interval on it."""
    rates = [probe.rate for probe in probes] or [1.0]
    low, high = min(rates) / 1.15, max(rates) * 1.15
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = (1, 2, 5) if high / low > 5 else (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8)
    ticks = [step * 10.0**decade for decade in decades for step in steps]
    axes.xaxis.set_major_locator(FixedLocator([tick for tick in ticks if low <= tick <= high]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("offered, requests/s (logarithmic)")
    interval = capacity.interval
    if interval is not None:
        axes.axvspan(interval.low, interval.high or high, color=Ink.FIRST, alpha=0.13, linewidth=0, zorder=0)
        axes.axvline(interval.estimate, color=Ink.FIRST, linewidth=1.0, zorder=1)


def _means(probes: Sequence[Probe], name: str) -> list[tuple[float, float]]:
    """Geometric means of a percentile at each rate; rates within 1 % are the same."""
    groups: list[list[Probe]] = []
    for probe in probes:
        if groups and probe.rate <= 1.01 * groups[-1][0].rate:
            groups[-1].append(probe)
        else:
            groups.append([probe])
    found = []
    for group in groups:
        logs = [math.log(max(getattr(probe.latency, name), 1e-3)) for probe in group]
        found.append((group[0].rate, math.exp(sum(logs) / len(logs))))
    return found or [(1.0, 1.0)]
