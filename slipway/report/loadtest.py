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
from slipway.report.headline import Headline, State, Tile
from slipway.report.plots import capacity as capacity_plots
from slipway.report.plots import comparison as comparison_plots
from slipway.report.plots import timeline as timeline_plots
from slipway.report.templating import make_environment, style_sheet
from slipway.timeline import Timeline
from slipway.verdict import Objective, Verdict


def verdict_page(name: str, verdict: Verdict, timeline: Timeline) -> str:
    """The page of one run at one rate."""
    limits = {
        objective.name.removesuffix("_ms"): objective.limit
        for objective in verdict.objectives
        if objective.name in ("p50_ms", "p95_ms", "p99_ms", "p999_ms")
    }
    limits = {"p99.9" if key == "p999" else key: limit for key, limit in limits.items()}
    figures = {
        "latency": timeline_plots.latency_over_time(timeline, limits),
        "percentiles": timeline_plots.percentile_plot(timeline, _for_percentiles(limits)),
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
        headline=_verdict_headline(verdict),
        tiles=_verdict_tiles(verdict, timeline),
        verdict=verdict,
        timeline=timeline,
        objectives=[_line(verdict, objective) for objective in verdict.objectives],
        latencies=_latencies(verdict),
        generator=_generator(verdict),
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


def _verdict_headline(verdict: Verdict) -> Headline:
    rate = f"{formatting.rate(verdict.offered_rate)} requests/s"
    titles = {
        "met": f"Objective met at {rate}",
        "missed": f"Objective missed at {rate}",
        "invalid": f"Load test invalid at {rate}",
    }
    return Headline(verdict.outcome, titles[verdict.outcome], verdict.reason)


def _verdict_tiles(verdict: Verdict, timeline: Timeline) -> list[Tile]:
    states = {objective.name: _state(verdict, objective.met) for objective in verdict.objectives}
    failed = sum(verdict.failures.values())
    of = f"of {formatting.whole(verdict.latency.requests)}, a wrong label counts"
    tiles = [
        Tile("Latency p50", formatting.milliseconds(verdict.latency.p50), "ms", "", states.get("p50_ms", "plain")),
        Tile("Latency p99", formatting.milliseconds(verdict.latency.p99), "ms", "", states.get("p99_ms", "plain")),
        Tile("Failed requests", formatting.whole(failed), "", of, states.get("error_rate", "plain")),
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
class _Line:
    """An objective as the page shows it."""

    name: str
    limit: str
    measured: str
    interval: str
    state: State


def _line(verdict: Verdict, objective: Objective) -> _Line:
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
    return _Line(
        name.removesuffix("_ms").replace("p999", "p99.9").replace("_", " "),
        f"{sign} {limit}{unit}",
        f"{show(objective.measured)}{unit}",
        interval,
        _state(verdict, objective.met),
    )


def _latencies(verdict: Verdict) -> list[tuple[str, Any]]:
    split = verdict.by_protocol if len(verdict.by_protocol) > 1 else {}
    return [("all", verdict.latency), *split.items()]


def _generator(verdict: Verdict) -> dict[str, Any]:
    who = f"{verdict.users} users of a closed loop" if verdict.loop == "closed" else f"{verdict.arrivals} arrivals"
    busiest = max(verdict.generators, key=lambda each: each.sending_cpu, default=None)
    return {
        "offered": f"{formatting.rate(verdict.offered_rate)} requests/s, {who}, seed {verdict.seed}",
        "window": f"{formatting.seconds(verdict.duration_s)} after {formatting.seconds(verdict.warmup_s)} of warm-up",
        "protocols": ", ".join(verdict.protocols),
        "texts": f"{formatting.whole(verdict.texts)}, {verdict.mix} mix",
        "own delay": f"p99 {formatting.milliseconds(verdict.dispatch_lag_p99_ms)} ms, allowed "
        f"{formatting.milliseconds(verdict.max_dispatch_lag_ms)} ms",
        "generators": f"{verdict.workers} of them" if verdict.workers > 1 else "one",
        **({"busiest sending thread": f"{busiest.sending_cpu:.2f} of a core"} if busiest else {}),
    }


def _state(verdict: Verdict, met: bool) -> State:
    return "invalid" if verdict.outcome == "invalid" else "met" if met else "missed"


def _for_percentiles(limits: dict[str, float]) -> dict[str, float]:
    """Names whose digits are the quantile's: `p99.9` → `p999`."""
    return {key.replace(".", ""): limit for key, limit in limits.items()}
