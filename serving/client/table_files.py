"""Tables in files, streamed: Parquet, CSV, TSV and JSON lines in, any of them out, with four more columns.

A chunk of rows is read, answered and written before the next is, so a file may be larger than memory. What was there is
written as it was read: a CSV's fields stay the strings that they are (007 is no number), an object of JSON lines keeps
its keys and their order. The output appears under its name when it is whole, and not before.

From one format to another, CSV gives strings; JSON lines become Parquet with the types of the first chunk, and a later
row that contradicts them is an error with its number.
"""

import contextlib
import csv
import gzip
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Protocol, cast

from serving.client.answers import Answer
from serving.client.tables import (
    LABEL,
    NEW_COLUMNS,
    SCORE,
    TRUNCATED,
    VERSION,
    AnswerColumns,
    append_arrow,
    columns_of,
    require_text_column,
    text_values,
)
from slipway.errors import DataError
from slipway.places import replacing_file

CHUNK_ROWS = 4096

Row = dict[str, Any]

_FORMATS = {
    ".parquet": "parquet", ".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl",
    ".csv.gz": "csv", ".tsv.gz": "tsv", ".jsonl.gz": "jsonl", ".ndjson.gz": "jsonl",
}  # fmt: skip
_DELIMITERS = {"csv": ",", "tsv": "\t"}
_LONGEST_FIELD = 1 << 30


class Chunk(Protocol):
    """Some rows of a table."""

    names: Sequence[str]

    def texts(self, column: str) -> Sequence[object]:
        """The values of a column."""

    def rows(self) -> list[Row]:
        """Every row as a mapping."""

    def batch(self) -> Any:
        """All of them as a `pyarrow.RecordBatch`."""


class Writer(Protocol):
    """Takes chunks with their answers."""

    def write(self, chunk: Chunk, columns: AnswerColumns, prefix: str) -> None:
        """Append the rows of `chunk`."""

    def close(self) -> None:
        """All is written."""


def score_file(
    source: Path,
    out: Path,
    classify: Callable[[Iterator[str]], Iterator[Answer]],
    *,
    text: str = "text",
    prefix: str = "",
    advance: Callable[[int], object] = int,
) -> tuple[int, int]:
    """Write the table `source` to `out`, with the answers of `classify` to its column `text`.

    Returns how many rows there are and how many of them had a text; calls `advance` with the rows of each chunk.
    Raises `DataError` if the table can't be read or lacks the column, with the place; what `classify` raises, too.
    `out` is left as it was then.
    """
    read, chosen = _READERS[_format_of(source)], _format_of(out)
    total = answered = 0
    with replacing_file(out) as scratch, contextlib.ExitStack() as stack:
        writer: Writer | None = None
        for chunk in read(source):
            require_text_column(list(chunk.names), text, prefix)
            texts = text_values(chunk.texts(text), text, total)
            answers = list(classify(value for value in texts if value is not None))
            if writer is None:
                writer = _writer(chosen, out, scratch)
                stack.callback(writer.close)
            try:
                writer.write(chunk, columns_of(texts, answers), prefix)
            except (TypeError, ValueError) as error:
                raise DataError(
                    f"rows {total} to {total + len(texts) - 1} can't be written to {out.name}: {error}."
                ) from error
            total += len(texts)
            answered += len(answers)
            advance(len(texts))
        if writer is None:
            raise DataError(f"{source} has no rows.")
    return total, answered


class _Rows:
    """Rows of CSV or JSON lines."""

    def __init__(self, rows: list[Row], names: Sequence[str]) -> None:
        self._rows, self.names = rows, names

    def texts(self, column: str) -> Sequence[object]:
        return [row.get(column) for row in self._rows]

    def rows(self) -> list[Row]:
        return self._rows

    def batch(self) -> Any:
        import pyarrow as pa

        return pa.RecordBatch.from_pylist(self._rows)


class _Batch:
    """Rows of Parquet."""

    def __init__(self, batch: Any) -> None:
        self._batch = batch
        self.names = batch.schema.names

    def texts(self, column: str) -> Sequence[object]:
        return cast("Sequence[object]", self._batch.column(column).to_pylist())

    def rows(self) -> list[Row]:
        return cast("list[Row]", self._batch.to_pylist())

    def batch(self) -> Any:
        return self._batch


def _read_parquet(file: Path) -> Iterator[Chunk]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(file) as parquet:
            yield from map(_Batch, parquet.iter_batches(CHUNK_ROWS))
    except pa.ArrowException as error:
        raise DataError(f"{file} can't be read as Parquet: {error}.") from error


def _read_separated(file: Path) -> Iterator[Chunk]:
    delimiter = _DELIMITERS[_format_of(file)]
    before = csv.field_size_limit(_LONGEST_FIELD)
    try:
        with _text_of(file) as stream:
            lines = csv.reader(stream, delimiter=delimiter, strict=True)
            header = next(lines, None)
            if header is None:
                raise DataError(f"{file} is empty: it has not even a header.")
            if len(set(header)) < len(header):
                raise DataError(f"{file} has two columns of the same name; rename one.")
            rows: list[Row] = []
            for fields in lines:
                if not fields:
                    continue
                if len(fields) != len(header):
                    raise DataError(
                        f"{file}, line {lines.line_num}: {len(fields)} fields, but the header has {len(header)}."
                    )
                rows.append(dict(zip(header, fields, strict=True)))
                if len(rows) == CHUNK_ROWS:
                    yield _Rows(rows, header)
                    rows = []
            if rows:
                yield _Rows(rows, header)
    except csv.Error as error:
        raise DataError(f"{file}: {error}.") from error
    finally:
        csv.field_size_limit(before)


def _read_jsonl(file: Path) -> Iterator[Chunk]:
    with _text_of(file) as stream:
        rows: list[Row] = []
        for number, line in enumerate(stream, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                raise DataError(f"{file}, line {number}: not JSON: {error}.") from error
            if not isinstance(row, dict):
                raise DataError(
                    f"{file}, line {number}: a {type(row).__name__}, not an object with the columns as keys."
                )
            rows.append(row)
            if len(rows) == CHUNK_ROWS:
                yield _Rows(rows, _names_of(rows))
                rows = []
        if rows:
            yield _Rows(rows, _names_of(rows))


def _names_of(rows: list[Row]) -> list[str]:
    """All that occur; a row may lack some."""
    return list(dict.fromkeys(name for row in rows for name in row))


_READERS: dict[str, Callable[[Path], Iterator[Chunk]]] = {
    "parquet": _read_parquet,
    "csv": _read_separated,
    "tsv": _read_separated,
    "jsonl": _read_jsonl,
}


class _ParquetWriter:
    def __init__(self, scratch: Path) -> None:
        self._scratch = scratch
        self._writer: Any = None

    def write(self, chunk: Chunk, columns: AnswerColumns, prefix: str) -> None:
        import pyarrow.parquet as pq

        batch = append_arrow(chunk.batch(), columns, prefix)
        if self._writer is None:
            self._writer = pq.ParquetWriter(self._scratch, batch.schema)
        self._writer.write_batch(batch.cast(self._writer.schema))

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


class _SeparatedWriter:
    def __init__(self, stream: IO[str], delimiter: str) -> None:
        self._stream = stream
        self._rows = csv.writer(stream, delimiter=delimiter, lineterminator="\n")
        self._names: list[str] | None = None

    def write(self, chunk: Chunk, columns: AnswerColumns, prefix: str) -> None:
        if self._names is None:
            self._names = list(chunk.names)
            self._rows.writerow([*self._names, *(prefix + name for name in NEW_COLUMNS)])
        unknown = [name for name in chunk.names if name not in self._names]
        if unknown:
            raise ValueError(f"the column {unknown[0]!r} is not in the first rows, so there is no place for it")
        for row, label, score, truncated, version in zip(
            chunk.rows(), columns.labels, columns.scores, columns.truncated, columns.versions, strict=True
        ):
            new = (label, None if score is None else f"{score:.6g}", _boolean(truncated), version)
            self._rows.writerow([*(row.get(name) for name in self._names), *new])

    def close(self) -> None:
        self._stream.close()


class _JsonlWriter:
    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def write(self, chunk: Chunk, columns: AnswerColumns, prefix: str) -> None:
        for row, label, score, truncated, version in zip(
            chunk.rows(), columns.labels, columns.scores, columns.truncated, columns.versions, strict=True
        ):
            new = {LABEL: label, SCORE: score, TRUNCATED: truncated, VERSION: version}
            wider = {**row, **{prefix + name: value for name, value in new.items()}}
            self._stream.write(json.dumps(wider, ensure_ascii=False, default=str) + "\n")

    def close(self) -> None:
        self._stream.close()


def _writer(chosen: str, out: Path, scratch: Path) -> Writer:
    if chosen == "parquet":
        return _ParquetWriter(scratch)
    packed = out.name.lower().endswith(".gz")
    stream = cast(
        "IO[str]",
        (gzip.open if packed else open)(scratch, "wt", encoding="utf-8", newline=""),
    )
    return _JsonlWriter(stream) if chosen == "jsonl" else _SeparatedWriter(stream, _DELIMITERS[chosen])


@contextlib.contextmanager
def _text_of(file: Path) -> Iterator[IO[str]]:
    opener = gzip.open if file.name.lower().endswith(".gz") else open
    try:
        with opener(file, "rt", encoding="utf-8-sig", newline="") as stream:
            yield stream
    except UnicodeDecodeError as error:
        raise DataError(
            f"{file} is not UTF-8 ({error.reason} at byte {error.start} of a block); convert it."
        ) from error
    except (EOFError, gzip.BadGzipFile) as error:
        raise DataError(f"{file} can't be unpacked as gzip: {error}.") from error


def _boolean(value: bool | None) -> str | None:
    return None if value is None else str(value).lower()


def _format_of(file: Path) -> str:
    name = file.name.lower()
    found = next((form for end, form in _FORMATS.items() if name.endswith(end)), None)
    if found is None:
        raise DataError(f"the format of {file} can't be told by its name; known are {', '.join(_FORMATS)}.")
    return found
