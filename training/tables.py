"""A labelled table, in whatever format it comes → texts, labels and, where asked for, times.

    table_files.py      csv, tsv, jsonl, parquet, ratings
    table_datasets.py   Hugging Face datasets
    table_columns.py    what they have in common: columns as found, and where each row came from

Reading is strict: what can't be understood is an error that names file, line and column, never a guess. The
one thing that is dropped, and counted, is a row without text.

Labels are strings from here on: 1 becomes "1", true "true", the integers of a `ClassLabel` become its names,
and with `classes` a number becomes the class whose range it falls in. White space around them goes.
"""

import bisect
import contextlib
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal

from slipway.artifacts import canonical_digest
from slipway.assets import Asset, fetch
from slipway.assets.contents import is_pattern
from slipway.errors import DataError
from slipway.recipe import Data
from training.table_columns import Columns, SplitName
from training.table_datasets import read_dataset
from training.table_files import READERS, format_of
from training.text_normalization import visible

_HALF_A_CHARACTER = re.compile("[\ud800-\udfff]")
"""A surrogate without its other half: JSON can spell it, UTF-8 can't."""

_NO_LABEL = re.compile("[\ud800-\udfff\x00-\x1f\x7f-\x9f\u2028\u2029]")
"""What a label may not have: it is printed in one line, by servers as well, and terminals obey some of these."""

_LONGEST_LABEL = 200


@dataclass(frozen=True)
class Table:
    """Labelled rows; all lists have one entry per row.

    `times` are seconds since 1970, or the numbers of the time column. `given` says which split a row belongs
    to where the source decides it (`test_source`, or a dataset with splits of its own), else None. `dropped`
    counts the rows that are not here, by reason.
    """

    texts: list[str]
    labels: list[str]
    times: list[float] | None
    given: list[SplitName | None]
    rows_read: int
    dropped: dict[str, int] = field(default_factory=dict)
    sha256: str = ""


def read_table(section: Data) -> Table:
    """Fetch and read the table of `section`, and `test_source` beside it, whose rows are given to test.

    Raises `DataError` that names file, line or row, and column; `AssetError` if the table can't be had.
    """
    asset = fetch(section.source, sha256=section.sha256, kind="dataset")
    table = _table_of(_columns_of(asset, section.source, section), section, asset)
    if section.test_source is not None:
        asset = fetch(section.test_source, sha256=section.test_sha256, kind="dataset")
        columns = _only_test(_columns_of(asset, section.test_source, section))
        table = _with_test(table, _table_of(columns, section, asset))
    _require_classes(table, section)
    return table


def _columns_of(asset: Asset, reference: str, section: Data) -> list[Columns]:
    several = is_pattern(reference.rpartition("/")[2])
    chosen: str = section.format
    if chosen == "auto":
        chosen = "dataset" if asset.path.is_dir() and not several else format_of(asset.files)
    if chosen == "dataset":
        return read_dataset(asset, section)
    if section.subset is not None:
        raise DataError(f"data.subset is {section.subset!r}, but {reference} is {chosen}, which has no subsets.")
    files = asset.files
    if asset.path.is_dir() and not several and chosen != "ratings":
        # A folder of parts, as Spark writes it, has markers beside them.
        files = tuple(file for file in files if format_of((file,), default="") == chosen)
        if not files:
            raise DataError(f"{asset.path} holds no file in the format {chosen} (data.format).")
    return [READERS[chosen](files, section)]


def _table_of(parts: list[Columns], section: Data, asset: Asset) -> Table:
    rows_read = sum(len(part.texts) for part in parts)
    if not rows_read:
        raise DataError(f"{asset.path} has no rows.")
    texts: list[str] = []
    labels: list[str] = []
    times: list[float] = []
    given: list[SplitName | None] = []
    to_label = _label_parser(section)
    to_time = _TimeParser(section.time) if section.time is not None else None
    for part in parts:
        for row, text in enumerate(part.texts):
            if text is None or (isinstance(text, str) and not text.strip()):
                continue
            texts.append(_checked_text(text, part, row, section.text))
            labels.append(to_label(part, row))
            if to_time is not None:
                times.append(to_time(part, row))
            given.append(part.split)
    if not texts:
        raise DataError(f"{asset.path} has {rows_read:,} rows, and none has a text in the column {section.text!r}.")
    dropped = {"empty_text": rows_read - len(texts)}
    return Table(texts, labels, times if section.time else None, given, rows_read, dropped, asset.sha256)


def _checked_text(text: object, part: Columns, row: int, column: str) -> str:
    if not isinstance(text, str):
        raise DataError(f"{part.place(row)}: column {column!r} (data.text) holds {_shown(text)}, which is not text.")
    if not text.isascii() and _HALF_A_CHARACTER.search(text):
        raise DataError(
            f"{part.place(row)}: column {column!r} (data.text) has half of a character (a lone surrogate), "
            "which is no text that can be written. Whatever wrote the table cut a string in the middle of "
            "an emoji."
        )
    return text


def _label_parser(section: Data) -> Callable[[Columns, int], str]:
    """A function from a row to its label, which also refuses a column of several types."""
    to_class = _class_of(section.classes) if section.classes is not None else None
    first: tuple[str, str, object] | None = None

    def parse(part: Columns, row: int) -> str:
        nonlocal first
        value = part.labels[row]
        label = _plain_label(value)
        if label is not None and len(label) > _LONGEST_LABEL:
            raise DataError(
                f"{part.place(row)}: column {section.label!r} (data.label) holds {len(label):,} characters "
                f"({_shown(label)}); a label has at most {_LONGEST_LABEL}. Is it the column of the texts?"
            )
        if label is None:
            raise DataError(
                f"{part.place(row)}: column {section.label!r} (data.label) holds {_shown(value)}, which is no label; "
                "allowed are strings without control characters, numbers, true and false."
            )
        kind = _kind(value)
        if first is None:
            first = kind, part.place(row), value
        elif kind != first[0]:
            raise DataError(
                f"{part.place(row)}: column {section.label!r} (data.label) holds {_shown(value)}, a {kind}, "
                f"while {first[1]} holds {_shown(first[2])}, a {first[0]}. A label column has one type."
            )
        if to_class is None:
            return label
        found = to_class(label) if kind != "boolean" else None
        if found is None:
            raise DataError(
                f"{part.place(row)}: column {section.label!r} holds {_shown(value)}, which is in no range of "
                f"data.classes ({_ranges(section)})."
            )
        return found

    return parse


def _plain_label(value: object) -> str | None:
    """The label as a string, or None for what can't be one."""
    if isinstance(value, str):
        label = value.strip()
        return label if label and not _NO_LABEL.search(label) else None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float | Decimal) and math.isfinite(value):
        return str(int(value)) if value == int(value) else str(value)
    return None


def _kind(value: object) -> str:
    if isinstance(value, bool):
        return "boolean"
    return "string" if isinstance(value, str) else "number"


def _class_of(classes: dict[str, tuple[float | None, float | None]]) -> Callable[[str], str | None]:
    """A function from a number as a string to the class whose [from, to) it is in, or None."""
    ranges = sorted(
        (-math.inf if low is None else low, math.inf if high is None else high, name)
        for name, (low, high) in classes.items()
    )
    lows = [low for low, _, _ in ranges]

    def find(label: str) -> str | None:
        try:
            number = float(label)
        except ValueError:
            return None
        place = bisect.bisect_right(lows, number) - 1
        if not math.isfinite(number) or place < 0 or number >= ranges[place][1]:
            return None
        return ranges[place][2]

    return find


def _ranges(section: Data) -> str:
    def bound(value: float | None) -> str:
        return "null" if value is None else f"{value:g}"

    return ", ".join(f"{name}: [{bound(low)}, {bound(high)})" for name, (low, high) in (section.classes or {}).items())


class _TimeParser:
    """From a row to its time as a number; a column holds either numbers or dates, not both."""

    def __init__(self, column: str) -> None:
        self.column = column
        self.first: tuple[str, str] | None = None

    def __call__(self, part: Columns, row: int) -> float:
        assert part.times is not None, "readers take the time column when the recipe names one"  # noqa: S101
        value = part.times[row]
        parsed = _time(value)
        if parsed is None:
            raise DataError(
                f"{part.place(row)}: column {self.column!r} (data.time) holds {_shown(value)}; allowed are "
                "ISO 8601, such as 2024-05-31 or 2024-05-31T18:00:00Z, and numbers."
            )
        kind, time = parsed
        if self.first is None:
            self.first = kind, part.place(row)
        elif kind != self.first[0]:
            raise DataError(
                f"{part.place(row)}: column {self.column!r} (data.time) holds a {kind} ({_shown(value)}), "
                f"while {self.first[1]} holds a {self.first[0]}; the two can't be put in order."
            )
        return time


def _time(value: object) -> tuple[str, float] | None:
    """The kind of a time and its place in time; one without a zone is taken as UTC."""
    if isinstance(value, str):
        value = _time_in(value.strip())
    if isinstance(value, datetime):
        return "date", (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
    if isinstance(value, date):
        return "date", datetime(value.year, value.month, value.day, tzinfo=UTC).timestamp()
    if isinstance(value, int | float | Decimal) and not isinstance(value, bool) and math.isfinite(value):
        return "number", float(value)
    return None


def _time_in(text: str) -> float | datetime | None:
    with contextlib.suppress(ValueError):
        return float(text)
    with contextlib.suppress(ValueError):
        return datetime.fromisoformat(text)
    return None


def _only_test(parts: list[Columns]) -> list[Columns]:
    """Of a test table with splits of its own the test split, else all of it; either way it is test."""
    chosen = [part for part in parts if part.split == "test"] or parts
    for part in chosen:
        part.split = "test"
    return chosen


def _with_test(table: Table, test: Table) -> Table:
    """`table` without a test split of its own, then the rows of `test`."""
    kept = [row for row, split in enumerate(table.given) if split != "test"]
    if not kept:
        raise DataError("data.source has a test split only, and data.test_source is test as well; nothing is left.")
    return Table(
        [table.texts[row] for row in kept] + test.texts,
        [table.labels[row] for row in kept] + test.labels,
        None if table.times is None or test.times is None else [table.times[row] for row in kept] + test.times,
        [table.given[row] for row in kept] + test.given,
        table.rows_read + test.rows_read,
        {
            "empty_text": table.dropped["empty_text"] + test.dropped["empty_text"],
            "replaced_by_test_source": len(table.texts) - len(kept),
        },
        canonical_digest([table.sha256, test.sha256]),
    )


def _require_classes(table: Table, section: Data) -> None:
    labels = set(table.labels)
    if len(labels) == 1:
        raise DataError(
            f"{section.source}: all {len(table.labels):,} rows have the label {labels.pop()!r}; at least two "
            "classes are needed to learn a difference."
        )
    looks: dict[str, str] = {}
    for label in sorted(labels):
        other = looks.setdefault(visible(label), label)
        if other != label:
            raise DataError(
                f"{section.source}: column {section.label!r} (data.label) has the labels {other!a} and "
                f"{label!a}, which look the same. Make them one."
            )
    if section.classes is None and len(table.labels) >= 10 and len(labels) > len(table.labels) / 2:
        examples = ", ".join(repr(label) for label in list(dict.fromkeys(table.labels))[:3])
        raise DataError(
            f"{section.source}: column {section.label!r} (data.label) has {len(labels):,} different values "
            f"in {len(table.labels):,} rows ({examples}, …), so it is an id, a text or a measurement and not "
            "a class. Name another column, or give data.classes to cut numbers into classes."
        )


def _shown(value: object) -> str:
    """`value` for a message, cut to a size that fits in it."""
    if value is None:
        return "null"
    if isinstance(value, str) and not value.strip():
        return "an empty value"
    text = ascii(value) if isinstance(value, str) and _HALF_A_CHARACTER.search(value) else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
