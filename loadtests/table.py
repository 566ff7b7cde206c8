"""A verdict for the terminal."""

from rich.table import Table

from slipway.verdict import Latency, Verdict

_COLOURS = {"met": "green", "missed": "red", "invalid": "yellow"}


def summary(verdict: Verdict) -> Table:
    """Latencies in all and by protocol, then the objectives; the title says met, missed or invalid."""
    colour = _COLOURS[verdict.outcome]
    table = Table(
        title=f"SLO [{colour} bold]{verdict.outcome}[/] at {verdict.offered_rate:g} requests/s",
        caption=verdict.reason,
        caption_justify="left",
        title_justify="left",
    )
    table.add_column("latency, ms")
    for name in ("requests", "p50", "p90", "p95", "p99", "p99.9", "max"):
        table.add_column(name, justify="right")
    _add(table, "all", verdict.latency)
    if len(verdict.by_protocol) > 1:
        for protocol, latency in verdict.by_protocol.items():
            _add(table, f"  {protocol}", latency)
    limits = {objective.name: objective for objective in verdict.objectives}
    table.add_section()
    cells = []
    for name in ("p50_ms", "", "p95_ms", "p99_ms"):
        objective = limits.get(name)
        cells.append(f"[{'green' if objective.met else 'red'}]≤ {objective.limit:g}[/]" if objective else "")
    table.add_row("objective", "", *cells, "", "")
    failed = sum(verdict.failures.values())
    errors = limits["error_rate"]
    kinds = ", ".join(f"{count} {outcome}" for outcome, count in verdict.failures.items())
    table.add_row(
        "failures", str(failed), f"[{'green' if errors.met else 'red'}]≤ {errors.limit:.2%}[/]", kinds, "", "", "", ""
    )
    table.add_row("generator lag", "", "", "", "", f"{verdict.dispatch_lag_p99_ms:.1f}", "", "")
    return table


def _add(table: Table, label: str, latency: Latency) -> None:
    times = (latency.p50, latency.p90, latency.p95, latency.p99, latency.p999, latency.max)
    table.add_row(label, str(latency.requests), *(f"{time:.1f}" for time in times))
