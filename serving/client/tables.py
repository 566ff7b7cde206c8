"""Data frames and Arrow tables: the rows that have a text are asked about, all come back, with four more columns.

A row without text has no answer: null in all four columns, whether its text is null, NaN, empty or blank (as training
drops such rows, and as the endpoint refuses them). A table that has a column of a new one's name is refused, because a
`label` that is there is most often the truth, and somebody's work; a prefix makes room.

Neither pandas nor pyarrow is imported unless the caller has brought a table of its.
"""

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from serving.client.answers import Answer
from slipway.errors import DataError

LABEL, SCORE, TRUNCATED, VERSION = NEW_COLUMNS = ("label", "score", "truncated", "version")

_HALF_A_CHARACTER = re.compile("[\ud800-\udfff]")


class Frame(Protocol):
    """A table whose texts are to be answered."""

    def texts(self) -> Iterator[str]:
        """Of the rows that have one."""

    def with_answers(self, answers: Sequence[Answer]) -> Any:
        """The table, wider by an answer for each of `texts`."""


@dataclass(frozen=True)
class AnswerColumns:
    """The new columns, a value for each row of the table; None where there is no text."""

    labels: list[str | None]
    scores: list[float | None]
    truncated: list[bool | None]
    versions: list[str | None]


def open_frame(table: Any, text: str, prefix: str) -> Frame:
    """`table` with its texts in the column `text`; raises `DataError` if that can't be."""
    libraries = {kind.__module__.partition(".")[0] for kind in type(table).__mro__}
    if "pandas" in libraries and hasattr(table, "columns"):
        return _PandasFrame(table, text, prefix)
    if "pyarrow" in libraries and hasattr(table, "schema"):
        return _ArrowFrame(table, text, prefix)
    raise DataError(
        f"{type(table).__name__} is not a table that can be scored; a pandas DataFrame, a pyarrow Table or a "
        "RecordBatch is."
    )


def require_text_column(names: Sequence[object], text: str, prefix: str) -> None:
    """Raise `DataError` unless `text` is there once and none of the new columns is."""
    if names.count(text) != 1:
        shown = ", ".join(map(repr, names[:20])) + (", …" if len(names) > 20 else "")
        raise DataError(f"the table has {names.count(text) or 'no'} columns named {text!r}; its columns are {shown}.")
    taken = [prefix + name for name in NEW_COLUMNS if prefix + name in names]
    if taken:
        raise DataError(
            f"the table has a column {taken[0]!r} already; choose a prefix for the new ones, such as 'predicted_'."
        )


def text_values(values: Iterable[object], column: str, first_row: int = 0) -> list[str | None]:
    """`values` as texts, None where there is none; raises `DataError` with the row for what isn't a text."""
    found: list[str | None] = []
    for row, value in enumerate(values, start=first_row):
        if value is None or (isinstance(value, float) and math.isnan(value)):
            found.append(None)
            continue
        if not isinstance(value, str):
            raise DataError(f"row {row}: column {column!r} holds a {type(value).__name__}, which is not text.")
        if not value.isascii() and _HALF_A_CHARACTER.search(value):
            raise DataError(f"row {row}: column {column!r} holds half of a character (a lone surrogate).")
        found.append(value if value.strip() else None)
    return found


def columns_of(texts: Sequence[str | None], answers: Sequence[Answer]) -> AnswerColumns:
    """`answers` to the texts that there are, spread over all rows."""
    following = iter(answers)
    rows = [None if text is None else next(following) for text in texts]
    return AnswerColumns(
        [None if row is None else row.label for row in rows],
        [None if row is None else row.score for row in rows],
        [None if row is None else row.truncated for row in rows],
        [None if row is None else row.version for row in rows],
    )


def append_arrow(table: Any, columns: AnswerColumns, prefix: str) -> Any:
    """A pyarrow Table or RecordBatch with the new columns after its own."""
    import pyarrow as pa

    for name, values, kind in (
        (LABEL, columns.labels, pa.string()),
        (SCORE, columns.scores, pa.float32()),
        (TRUNCATED, columns.truncated, pa.bool_()),
        (VERSION, columns.versions, pa.string()),
    ):
        table = table.append_column(prefix + name, pa.array(values, kind))
    return table


class _PandasFrame:
    def __init__(self, frame: Any, text: str, prefix: str) -> None:
        require_text_column(list(frame.columns), text, prefix)
        series = frame[text]
        values = series.astype(object).where(series.notna(), None)
        self._frame, self._prefix = frame, prefix
        self._texts = text_values(values, text)

    def texts(self) -> Iterator[str]:
        return (text for text in self._texts if text is not None)

    def with_answers(self, answers: Sequence[Answer]) -> Any:
        import pandas as pd

        columns = columns_of(self._texts, answers)
        return self._frame.assign(
            **{
                self._prefix + LABEL: pd.array(columns.labels, dtype="string"),
                self._prefix + SCORE: pd.array(columns.scores, dtype="Float32"),
                self._prefix + TRUNCATED: pd.array(columns.truncated, dtype="boolean"),
                self._prefix + VERSION: pd.array(columns.versions, dtype="string"),
            }
        )


class _ArrowFrame:
    def __init__(self, table: Any, text: str, prefix: str) -> None:
        require_text_column(table.schema.names, text, prefix)
        self._table, self._prefix = table, prefix
        self._texts = text_values(table.column(text).to_pylist(), text)

    def texts(self) -> Iterator[str]:
        return (text for text in self._texts if text is not None)

    def with_answers(self, answers: Sequence[Answer]) -> Any:
        return append_arrow(self._table, columns_of(self._texts, answers), self._prefix)
