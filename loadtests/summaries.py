"""Whatever a load test left, for the terminal."""

from rich.table import Table

from loadtests.table import summary
from slipway.artifacts import Artifact
from slipway.capacity import CAPACITY, Capacity
from slipway.comparison import COMPARISON, Comparison
from slipway.verdict import VERDICT, Verdict

_COLOURS = {"met": "green", "missed": "red", "invalid": "yellow"}


def summary_of(artifact: Artifact) -> Table:
    """The table of a verdict, a capacity or a comparison."""
    if artifact.manifest.kind == "capacity":
        return _capacity(Capacity.model_validate(artifact.json(CAPACITY)))
    if artifact.manifest.kind == "comparison":
        return _comparison(Comparison.model_validate(artifact.json(COMPARISON)))
    return summary(Verdict.model_validate(artifact.json(VERDICT)))


def _capacity(capacity: Capacity) -> Table:
    """A row for each probe, by rate."""
    table = _table(
        "Capacity", f"{capacity.reason}\nBottleneck: {capacity.bottleneck.what}. {capacity.bottleneck.reason}"
    )
    for name in ("requests/s", "probe", "p50, ms", "p99, ms", "failed", "under way", "cores"):
        table.add_column(name, justify="left" if name == "probe" else "right")
    for probe in sorted(capacity.probes, key=lambda probe: (probe.rate, probe.number)):
        table.add_row(
            f"{probe.rate:.1f}",
            f"[{_COLOURS[probe.answer]}]{probe.answer}[/]",
            f"{probe.latency.p50:.1f}",
            f"{probe.latency.p99:.1f}",
            f"{probe.error_rate:.2%}",
            f"{probe.in_flight:.1f}",
            f"{probe.usage.cpu_cores:.2f}" if probe.usage else "",
        )
    return table


def _comparison(comparison: Comparison) -> Table:
    """A row for each figure: A, B, the ratio and its interval."""
    table = _table(f"{comparison.b.name} over {comparison.a.name}", comparison.reason)
    for name in ("", "A", "B", "B / A", f"{comparison.confidence:.0%} interval"):
        table.add_column(name, justify="right" if name else "left")
    for ratio in comparison.ratios:
        if ratio.figure == "throughput":
            a, b = (f"{side.achieved_rate:.1f}/s" for side in (comparison.a, comparison.b))
        else:
            a, b = (f"{getattr(side.latency, ratio.figure):.1f} ms" for side in (comparison.a, comparison.b))
        style = "bold" if ratio.differs else ""
        table.add_row(ratio.figure, a, b, f"{ratio.ratio:.3f}", f"{ratio.low:.3f} – {ratio.high:.3f}", style=style)
    return table


def _table(title: str, caption: str) -> Table:
    return Table(title=title, caption=caption, title_justify="left", caption_justify="left")
