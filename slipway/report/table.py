"""The table that a run ends with: what was won, what it cost, whether the objective holds, where it all is.

One table, 80 columns, two blocks of four columns that happen to share a grid: quality and size by stage,
then latency by percentile. Everything but names and paths is ASCII and every judgement is a word, so that
it reads the same in a log file, without colours and in a terminal that is not UTF-8 (rich replaces the
rules itself)."""

import os
import re
from pathlib import Path
from typing import Literal

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from slipway.report import formatting
from slipway.report.evidence import Evidence, Load, Quality

_WIDTHS = (17, 9, 9, 9, 20)
"""Of the columns; with the space around them they fill 80."""

_STYLES = {"met": "green", "missed": "bold red", "invalid": "bold yellow"}


def summary_table(evidence: Evidence, report: Path | None = None) -> Group:
    """What a person takes away from a run; `report` is the page that was written about it."""
    grid = Table(box=box.HORIZONTALS, show_header=False, padding=(0, 1), border_style="dim")
    for width in _WIDTHS:
        justify: Literal["left", "right"] = "left" if width == _WIDTHS[0] else "right"
        grid.add_column(width=width, justify=justify, no_wrap=True, overflow="ellipsis")
    if evidence.training or evidence.compression:
        _add_quality(grid, evidence)
    if evidence.load:
        if evidence.training or evidence.compression:
            grid.add_section()
        _add_latency(grid, evidence.load)
    parts: list[RenderableType] = [Text(""), _title(evidence), Text(""), grid, Text("")]
    parts += [Text(f"Note: {note}", style="yellow") for note in evidence.notes]
    parts.append(_places(evidence, report))
    return Group(*parts)


def _title(evidence: Evidence) -> Text:
    title = Text(f" {evidence.name}", style="bold")
    if evidence.load is None:
        return title
    verdict = evidence.load.verdict
    said = {"met": "SLO met", "missed": "SLO MISSED", "invalid": "load test INVALID"}[verdict.outcome]
    title.append(": ")
    title.append(said, style=_STYLES[verdict.outcome])
    title.append(f" at {formatting.rate(verdict.offered_rate)} requests/s")
    if verdict.outcome != "met":
        title.append(f"\n {verdict.reason}", style="not bold")
    return title


def _add_quality(grid: Table, evidence: Evidence) -> None:
    training, compression = evidence.training, evidence.compression
    before = training.before if training else None
    after = training.after if training else None
    compressed = compression.test if compression else None
    any_split = compressed or after or before
    rows = f"test, {any_split.rows:,} rows" if any_split else "test"
    grid.add_row(rows, "majority", "before", "after", "compressed", style="bold")
    stages = (before, after, compressed)
    grid.add_row(
        "accuracy",
        _ascii(formatting.percent(any_split.majority_accuracy if any_split else None)),
        *(_ascii(formatting.percent(quality.accuracy if quality else None)) for quality in stages),
    )
    grid.add_row(
        "macro-F1",
        _ascii(formatting.score(any_split.majority_macro_f1 if any_split else None)),
        *(_macro_f1(quality) for quality in stages),
    )
    served = compression.model_bytes if compression else None
    sizes = [_ascii(formatting.megabytes(size)) for size in (evidence.dense_bytes, served)]
    grid.add_row("model size, MB", "", "", *sizes)
    if compression and compression.chosen:
        grid.add_row("variant", "", "", "dense", _in_lines(compression.chosen.name))
        factor, way = formatting.resized(evidence.dense_bytes, served)
        by = f"{factor}x" if way else "-" if factor == formatting.DASH else "nothing"
        grid.add_row(f"{way or 'smaller'} by", "", "", "", by)


def _in_lines(name: str) -> str:
    """A variant's name, broken after a hyphen where its column ends, as nobody could ask for one that is cut off."""
    lines = [""]
    for part in re.findall("[^-]+-?", name):
        lines = [*lines[:-1], lines[-1] + part] if len(lines[-1] + part) <= _WIDTHS[-1] else [*lines, part]
    return "\n".join(lines)


def _macro_f1(quality: Quality | None) -> str:
    return _ascii(formatting.score(quality.macro_f1 if quality else None))


def _add_latency(grid: Table, load: Load) -> None:
    verdict = load.verdict
    grid.add_row(f"latency at {formatting.rate(verdict.offered_rate)}/s", "p50", "p95", "p99", "failed", style="bold")
    latency = verdict.latency
    measured = [_ascii(formatting.milliseconds(value)) for value in (latency.p50, latency.p95, latency.p99)]
    grid.add_row("measured, ms", *measured, _failures(load))
    objectives = {objective.name: objective for objective in verdict.objectives}
    asked = [objectives.get(name) for name in ("p50_ms", "p95_ms", "p99_ms")]
    errors = objectives.get("error_rate")
    grid.add_row(
        "allowed, at most",
        *(formatting.milliseconds(objective.limit) if objective else "" for objective in asked),
        f"{100 * errors.limit:g}%" if errors else "",
    )
    if verdict.outcome == "invalid":
        grid.add_row("judged", "", "", "", Text("INVALID", style=_STYLES["invalid"]))
        return
    judged = [
        Text("met" if objective.met else "MISSED", style=_STYLES["met" if objective.met else "missed"])
        if objective
        else Text("")
        for objective in (*asked, errors)
    ]
    grid.add_row("judged", *judged)


def _failures(load: Load) -> str:
    counted = f"{load.verdict.failed:,} of {load.verdict.latency.requests:,}"
    return counted if len(counted) <= _WIDTHS[-1] else f"{100 * load.verdict.error_rate:.3g}%"


def _places(evidence: Evidence, report: Path | None) -> Table:
    """Where everything is; a long path goes on the next line whole rather than losing its end."""
    places = Table.grid(padding=(0, 2))
    places.add_column(no_wrap=True)
    places.add_column(overflow="fold")
    for artifact in evidence.artifacts:
        places.add_row(f" {artifact.manifest.kind}", Text(_shortest(artifact.path)))
    if report is not None:
        places.add_row(" report", Text(_shortest(report), style="bold"))
    return places


def _shortest(path: Path) -> str:
    """`path` from here if that is shorter, so that it can be pasted."""
    relative = os.path.relpath(path)
    return min(relative, str(path.absolute()), key=len)


def _ascii(text: str) -> str:
    return text.replace(formatting.DASH, "-").replace("−", "-")
