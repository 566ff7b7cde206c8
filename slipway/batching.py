"""Which rows run together: of similar length, within a budget of tokens.

A batch is a rectangle, so every row in it costs as much as the longest. Rows are therefore sorted by length and cut
into batches of at most so many rows × tokens; a row joins a longer one only if at least `least_filled` of its place is
not padding. So padding is bounded whatever the lengths are: at 0.8, at most a fifth of what is run.

An engine that compiles for each shape (10 ms and more, see `slipway.engines.openvino`) must not see a new one with
every batch: 64 row counts × 8 lengths are 512 of them. For such an engine rows are counted in powers of two up to
eight; with 8 to 32 rows it gained nothing more.

The bound has a price where there are few rows: two texts of 20 and 40 tokens run one after the other. A batch of eight
was 1.4 to 1.6 times as fast per text as one at a time (OpenVINO int8, ONNX Runtime fp32; 32 tokens), so a row that is
more than a third padding would cost more in a batch than alone.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class TokenBudget:
    """What a batch may be."""

    tokens: int = 4096
    """Rows × tokens: 32 texts of 128 tokens. More gained nothing and costs memory. One row may be longer."""
    rows: int = 64
    least_filled: float = 0.8
    """Share of a row's place that must not be padding."""
    row_counts: tuple[int, ...] | None = None
    """Numbers of rows that a batch may have, largest first, 1 the last; any if empty. None leaves it to the engine."""


FEW_SHAPES = (8, 4, 2, 1)
"""Row counts for an engine that compiles for each shape."""


def token_batches(lengths: Sequence[int], budget: TokenBudget) -> Iterator[list[int]]:
    """Every index of `lengths` once, in lists that run together, longest first."""
    rows: list[int] = []
    longest = 0
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        if rows and (
            len(rows) == budget.rows
            or (len(rows) + 1) * longest > budget.tokens
            or lengths[row] < budget.least_filled * longest
        ):
            yield from _counted(rows, budget)
            rows = []
        if not rows:
            longest = lengths[row]
        rows.append(row)
    yield from _counted(rows, budget)


def _counted(rows: list[int], budget: TokenBudget) -> Iterator[list[int]]:
    """`rows` in parts whose sizes are allowed."""
    start = 0
    while start < len(rows):
        left = len(rows) - start
        size = next((count for count in budget.row_counts or () if count <= left), left)
        yield rows[start : start + size]
        start += size
