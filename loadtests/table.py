"""A verdict for the terminal."""

from rich.table import Table

from slipway.verdict import Latency, Objective, Verdict

_COLOURS = {"met": "green", "missed": "red", "invalid": "yellow"}
_PERCENTILES = ("p50_ms", "", "p95_ms", "p99_ms", "p999_ms")


def summary(verdict: Verdict) -> Table:
    """Latencies in all and by protocol, then the objectives; the title says met, missed or invalid."""
    colour = _COLOURS[verdict.outcome]
    closed = f" [yellow](closed loop, {verdict.users} users)[/]" if verdict.loop == "closed" else ""
    table = Table(
        title=f"SLO [{colour} bold]{verdict.outcome}[/] at {verdict.offered_rate:.6g} requests/s{closed}",
        caption="\n".join([verdict.reason, *verdict.cautions]),
        caption_justify="left",
        title_justify="left",
    )
    table.add_column("latency, ms")
    for name in ("requests", "p50", "p90", "p95", "p99", "p99.9", "max"):
        table.add_column(name, justify="right")
    whole, *parts = verdict.latency_rows
    _add(table, *whole)
    if verdict.intervals:
        table.add_row("  95 % sure", "", *(_interval(verdict, name) for name in _PERCENTILES), "", style="dim")
    for name, latency in parts:
        _add(table, f"  {name}", latency)
    limits = {objective.name: objective for objective in verdict.objectives}
    table.add_section()
    cells = [_limit(limits[name]) if name in limits else "" for name in _PERCENTILES]
    table.add_row("objective", "", *cells, "")
    kinds = ", ".join(f"{count} {outcome}" for outcome, count in verdict.failures.items())
    table.add_row("failures", str(verdict.failed), _limit(limits["error_rate"]), kinds, "", "", "", "")
    if verdict.goodput_share is not None:
        judged = _limit(limits["goodput"]) if "goodput" in limits else ""
        within = f"≤ {verdict.goodput_ms:g} ms"
        table.add_row("goodput", f"{verdict.goodput_share:.2%}", judged, "", within, "", "", "")
    table.add_row("generator lag", "", "", "", "", f"{verdict.dispatch_lag_p99_ms:.1f}", "", "")
    return table


def _add(table: Table, label: str, latency: Latency) -> None:
    times = (latency.p50, latency.p90, latency.p95, latency.p99, latency.p999, latency.max)
    table.add_row(label, str(latency.requests), *(f"{time:.1f}" for time in times))


def _interval(verdict: Verdict, objective: str) -> str:
    interval = verdict.intervals.get(objective.removesuffix("_ms"))
    if interval is None:
        return ""
    low, high = interval
    return f"{low:.4g}–" if high is None else f"{low:.4g}–{high:.4g}"


def _limit(objective: Objective) -> str:
    least = objective.name == "goodput"
    limit = f"{objective.limit:.2%}" if least or objective.name == "error_rate" else f"{objective.limit:g}"
    return f"[{'green' if objective.met else 'red'}]{'≥' if least else '≤'} {limit}[/]"
