"""Columns of a table as they were found, before they mean anything, and where each row came from."""

import bisect
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from slipway.assets.contents import nearest
from slipway.errors import DataError
from slipway.recipe import Data

SplitName = Literal["train", "dev", "test"]


@dataclass
class Columns:
    """The columns that the recipe names, one entry per row. `split` is what the source says all of them are
    for."""

    texts: list[object] = field(default_factory=list)
    labels: list[object] = field(default_factory=list)
    times: list[object] | None = None
    split: SplitName | None = None
    _starts: list[int] = field(default_factory=list)
    _origins: list[tuple[str, "array[int] | None"]] = field(default_factory=list)

    def begin(self, name: str, lines: "array[int] | None" = None) -> None:
        """Rows from here on come from `name`; `lines` is where each of them starts, if it isn't one row per
        line."""
        self._starts.append(len(self.texts))
        self._origins.append((name, lines))

    def place(self, row: int) -> str:
        """Where `row` (from 0) is, for a person: "reviews.csv, line 12"."""
        part = bisect.bisect_right(self._starts, row) - 1
        name, lines = self._origins[part]
        offset = row - self._starts[part]
        return f"{name}, row {offset + 1}" if lines is None else f"{name}, line {lines[offset]}"


def wanted_columns(section: Data) -> dict[str, str]:
    """The columns to read, by the recipe's field that names them."""
    wanted = {"text": section.text, "label": section.label}
    return wanted if section.time is None else wanted | {"time": section.time}


def require_columns(section: Data, found: Sequence[str], where: str) -> dict[str, int]:
    """Position of each wanted column among those `found`, by the recipe's field.

    Raises `DataError` if one is missing or there twice.
    """
    positions = {}
    for role, column in wanted_columns(section).items():
        count = list(found).count(column)
        if not any(found):
            raise DataError(f"{where} begins with an empty line, where the names of its columns should be.")
        if count == 0:
            shown = ", ".join(repr(name) for name in list(found)[:20]) + (", …" if len(found) > 20 else "")
            raise DataError(
                f"{where} has no column {column!r} (data.{role}); its columns are {shown}"
                f"{nearest(column, found, count=1)}."
            )
        if count > 1:
            raise DataError(f"{where} has {count} columns named {column!r} (data.{role}); rename all but one.")
        positions[role] = list(found).index(column)
    return positions
