"""The pages that load tests write into their artifacts: a run, a capacity, a comparison.

They are drawn from what the artifact's JSON says and nothing else, so a page can be drawn again from it.
`slipway report` is the page of a whole run, from data to service; these are the close look at its last stage.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

from markupsafe import Markup

from slipway.artifacts import library_versions
from slipway.capacity import Capacity
from slipway.comparison import Comparison
from slipway.report import formatting
from slipway.report.headline import Headline, State, Tile, load_headline, load_tiles, objective_state
from slipway.report.plots import capacity as capacity_plots
from slipway.report.plots import comparison as comparison_plots
from slipway.report.plots import timeline as timeline_plots
from slipway.report.templating import make_environment, style_sheet
from slipway.timeline import Timeline
from slipway.verdict import PERCENTILES, Objective, Verdict


def verdict_page(name: str, verdict: Verdict, timeline: Timeline) -> str:
    """The page of one run at one rate."""
    limits = verdict.latency_limits
    figures = {
        "latency": timeline_plots.latency_over_time(timeline, limits),
        "percentiles": timeline_plots.percentile_plot(timeline, limits),
        "distribution": timeline_plots.distribution(timeline, limits),
        "throughput": timeline_plots.throughput(timeline),
    }
    if any(window.failures for window in timeline.windows):
        figures["failures"] = timeline_plots.failures_over_time(timeline)
    if sum(reading.work is not None for reading in timeline.readings) > 1:
        figures["work"] = timeline_plots.work_over_time(timeline)
    if sum(reading.usage is not None for reading in timeline.readings) > 1:
        figures["server"] = timeline_plots.server_over_time(timeline)
    return _render(
        "verdict.html.j2",
        name,
        figures,
        headline=load_headline(verdict),
        tiles=_verdict_tiles(verdict, timeline),
        verdict=verdict,
        timeline=timeline,
        objectives=objective_lines(verdict),
        conditions=conditions(verdict),
    )


def capacity_page(name: str, capacity: Capacity) -> str:
    """The page of a search for the capacity."""
    figures = {}
    if any(probe.answer != "invalid" for probe in capacity.probes):
        figures["rate"] = capacity_plots.latency_against_rate(capacity)
    if any(probe.usage for probe in capacity.probes):
        figures["machine"] = capacity_plots.machine_against_rate(capacity)
    if any(probe.work for probe in capacity.probes):
        figures["work"] = capacity_plots.work_against_rate(capacity)
    return _render(
        "capacity.html.j2",
        name,
        figures,
        headline=_capacity_headline(capacity),
        tiles=_capacity_tiles(capacity),
        capacity=capacity,
        probes=sorted(capacity.probes, key=lambda probe: (probe.rate, probe.number)),
    )


def comparison_page(name: str, comparison: Comparison) -> str:
    """The page of a comparison of two endpoints."""
    figures = {"blocks": comparison_plots.blocks_plot(comparison)}
    if comparison.ratios:
        figures["ratios"] = comparison_plots.ratio_plot(comparison)
    titles = {
        "met": f"{comparison.b.name} against {comparison.a.name}",
        "missed": f"{comparison.b.name} is too slow",
        "invalid": "The comparison is invalid",
    }
    state: State = "plain" if comparison.outcome == "met" and comparison.max_p99_ratio is None else comparison.outcome
    rows = []
    for ratio in comparison.ratios:
        throughput = ratio.figure == "throughput"
        a, b = (
            f"{side.achieved_rate:.1f}/s"
            if throughput
            else f"{formatting.milliseconds(getattr(side.latency, ratio.figure))} ms"
            for side in (comparison.a, comparison.b)
        )
        rows.append((ratio, a, b))
    return _render(
        "comparison.html.j2",
        name,
        figures,
        headline=Headline(state, titles[comparison.outcome], comparison.reason),
        tiles=[
            Tile(f"{ratio.figure}, B over A", f"{ratio.ratio:.2f}", "×", f"{ratio.low:.2f} to {ratio.high:.2f}")
            for ratio in comparison.ratios
            if ratio.figure in ("p50", "p99", "throughput")
        ],
        comparison=comparison,
        rows=rows,
    )


def _render(template: str, name: str, figures: Mapping[str, str], **values: Any) -> str:
    environment = make_environment()
    return environment.get_template(template).render(
        name=name,
        style=style_sheet(environment),
        figures={key: Markup(svg) for key, svg in figures.items()},  # noqa: S704  (drawn by this package)
        versions=library_versions(),
        written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        **values,
    )


def _verdict_tiles(verdict: Verdict, timeline: Timeline) -> list[Tile]:
    tiles = [
        *load_tiles(verdict),
        Tile(
            "Answered correctly",
            formatting.rate(round(verdict.achieved_rate, 1)),
            "/s",
            f"offered {formatting.rate(verdict.offered_rate)}/s",
        ),
    ]
    if timeline.work:
        share = timeline.work.queue_ms / max(timeline.work.queue_ms + timeline.work.compute_ms, 1e-9)
        note = f"{timeline.work.queue_ms:.2f} ms of queue, {timeline.work.compute_ms:.2f} ms of computing"
        tiles.append(Tile("Waiting in the server", f"{100 * share:.0f}", "%", note))
    if timeline.usage:
        usage = timeline.usage
        tiles.append(Tile("Server's cores", f"{usage.cpu_cores:.2f}", "", f"of {usage.cores}, {usage.rss_mb:,.0f} MB"))
    return tiles


def _capacity_headline(capacity: Capacity) -> Headline:
    titles = {"found": "Capacity", "at-least": "At least", "none": "No rate meets the objective"}
    title = titles[capacity.outcome]
    interval = capacity.interval
    if interval is not None:
        value = interval.low if interval.high is None else interval.estimate
        title = f"{title} {value:.4g} requests/s"
    state: State = "missed" if not capacity.met or interval is None else "plain" if capacity.at_least is None else "met"
    return Headline(state, title, capacity.reason)


def _capacity_tiles(capacity: Capacity) -> list[Tile]:
    interval = capacity.interval
    tiles = []
    if interval is not None:
        high = "?" if interval.high is None else f"{interval.high:.4g}"
        tiles.append(
            Tile("Capacity, requests/s", f"{interval.low:.4g} – {high}", "", f"{interval.confidence:.0%} interval")
        )
    source = "Triton's statistics" if capacity.service_from == "triton" else "one request at a time"
    tiles += [
        Tile("Bottleneck", capacity.bottleneck.what, "", ""),
        Tile("Service time", formatting.milliseconds(capacity.service_ms), "ms", f"mean, by {source}"),
        Tile("Under way at capacity", f"{capacity.in_flight:.1f}", "", "rate × mean latency (Little)"),
    ]
    if capacity.cpu_ms_per_request is not None:
        value = formatting.milliseconds(capacity.cpu_ms_per_request)
        tiles.append(Tile("Processor time a request", value, "ms", "all processes of the server"))
    if capacity.memory_mb is not None:
        tiles.append(Tile("Memory, at most", f"{capacity.memory_mb:,.0f}", "MB", "all processes of the server"))
    return tiles


@dataclass(frozen=True)
class ObjectiveLine:
    """An objective as a page shows it."""

    name: str
    limit: str
    measured: str
    interval: str
    state: State


def objective_lines(verdict: Verdict) -> list[ObjectiveLine]:
    """What was asked, what was measured, and whether that is enough."""
    return [_line(verdict, objective) for objective in verdict.objectives]


def _line(verdict: Verdict, objective: Objective) -> ObjectiveLine:
    """Rates in percent, times in ms; goodput is the one that has to be above its limit."""
    name = objective.name
    show: Callable[[float], str]
    if name.endswith("_ms"):
        show, unit = formatting.milliseconds, " ms"
    elif name in ("error_rate", "goodput"):
        show, unit = partial(formatting.percent, digits=2), ""
    else:
        show, unit = formatting.compact, ""
    sign = "≥" if name == "goodput" else "≤"
    limit = formatting.compact(objective.limit) if name.endswith("_ms") else show(objective.limit)
    interval = ""
    if objective.interval is not None:
        low, high = objective.interval
        interval = f"{show(low)} – {'?' if high is None else show(high)}{unit}"
    return ObjectiveLine(
        PERCENTILES.get(name, name.replace("_", " ")),
        f"{sign} {limit}{unit}",
        f"{show(objective.measured)}{unit}",
        interval,
        objective_state(verdict, objective),
    )


def conditions(verdict: Verdict) -> dict[str, str]:
    """How the load was made."""
    who = f"{verdict.users} users of a closed loop" if verdict.loop == "closed" else f"{verdict.arrivals} arrivals"
    busiest = max(verdict.generators, key=lambda each: each.sending_cpu, default=None)
    return {
        "offered": f"{formatting.rate(verdict.offered_rate)} requests/s, {who}, seed {verdict.seed}",
        "window": f"{formatting.seconds(verdict.duration_s)} after {formatting.seconds(verdict.warmup_s)} of warm-up",
        "protocols": ", ".join(verdict.protocols),
        "answered correctly": f"{formatting.rate(round(verdict.achieved_rate, 1))} requests/s",
        "texts": f"{formatting.whole(verdict.texts)}, {verdict.mix} mix",
        "own delay": f"p99 {formatting.milliseconds(verdict.dispatch_lag_p99_ms)} ms, allowed "
        f"{formatting.milliseconds(verdict.max_dispatch_lag_ms)} ms",
        "generators": f"{verdict.workers} of them" if verdict.workers > 1 else "one",
        **({"busiest sending thread": f"{busiest.sending_cpu:.2f} of a core"} if busiest else {}),
    }
