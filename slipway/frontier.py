"""The table that a search ends with: what each variant kept, what it costs, and why it lost.

Two tables of at most 110 columns, quality and speed, with the same rows in the same order, then a line for each
verdict: one table of twenty columns would be read by nobody. ASCII and words, as in `slipway.report.table`.
"""

from collections.abc import Sequence

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from slipway.bundle import Variant

WIDTH = 110
"""Columns that the tables may take; in fewer, names of variants would be cut off."""


def frontier_table(variants: Sequence[Variant]) -> Group:
    """Every variant of a frontier, dense PyTorch first; the chosen one is marked with an asterisk."""
    parts: list[RenderableType] = [_quality(variants), Text("")]
    if any(variant.speeds for variant in variants):
        parts += [_speed(variants), Text("")]
    return Group(*parts, *(_verdict(variant) for variant in variants if variant.verdict), Text(""))


def _quality(variants: Sequence[Variant]) -> Table:
    table = _table("variant", f"dev {variants[0].metric}", "95 %", "points lost", "95 %", "agree", "parity", "MB", "T")
    for variant in variants:
        _add(
            table,
            variant,
            _score(variant.dev.get(variant.metric)),
            _range(variant.interval, 3),
            f"{variant.loss_points:+.2f}" if variant.loss_interval else "",
            _range(variant.loss_interval, 1),
            f"{variant.agreement:.1%}",
            f"{variant.max_logit_difference:.1g}",
            f"{variant.bytes / 1e6:.1f}",
            f"{variant.temperature:.2f}",
        )
    return table


def _speed(variants: Sequence[Variant]) -> Table:
    shapes = list(next(variant.speeds for variant in variants if variant.speeds))
    table = _table("p50 ms at", *shapes, "texts", "texts/s", "x PyTorch", "mem MB", "roofline")
    for variant in variants:
        speeds = variant.speeds
        _add(
            table,
            variant,
            *(f"{speeds[shape].p50_ms:.3g}" if shape in speeds else "" for shape in shapes),
            f"{variant.text_ms['p50']:.3g}" if variant.text_ms else "",
            f"{max((speed.sequences_per_s for speed in speeds.values()), default=0):,.0f}" if speeds else "",
            f"{variant.speedup:.1f}",
            "" if variant.memory_mb is None else f"{variant.memory_mb:.0f}",
            "" if variant.roofline_share is None else f"{variant.roofline_share:.0%}",
        )
    return table


def _table(first: str, *columns: str) -> Table:
    table = Table(box=box.HORIZONTALS, padding=(0, 1, 0, 0), border_style="dim", pad_edge=False)
    table.add_column(first, no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def _add(table: Table, variant: Variant, *cells: str) -> None:
    mark = "* " if variant.chosen else "  "
    table.add_row(mark + variant.name, *cells, style="bold green" if variant.chosen else "")


def _verdict(variant: Variant) -> Text:
    style = "green" if variant.chosen else "" if variant.passed else "dim"
    return Text(f"{variant.name}: {variant.verdict}", style=style)


def _score(value: object) -> str:
    return f"{value:.3f}" if isinstance(value, float) else "-"


def _range(interval: tuple[float, float] | None, digits: int) -> str:
    return "" if interval is None else f"{interval[0]:.{digits}f}..{interval[1]:.{digits}f}"
