"""Files of rows: CSV, TSV, JSON lines, Parquet, and ratings.

CSV and TSV are read by Python's own parser in its strict mode rather than by a faster one: it takes 1 s per
million rows, keeps new lines and quotes inside fields, and knows the line on which a row began, which is what
a person needs to mend one. In TSV, too, a field that begins with a quote is a quoted one, as pandas and Excel
write it.
"""

import csv
import gzip
import io
import json
import zlib
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

from slipway.errors import DataError, first_line
from slipway.progress import progress
from slipway.recipe import Data
from training.table_columns import Columns, require_columns, wanted_columns

_SUFFIXES = {
    ".csv": "csv", ".tsv": "tsv", ".csv.gz": "csv", ".tsv.gz": "tsv", ".parquet": "parquet",
    ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl",
    ".jsonl.gz": "jsonl", ".ndjson.gz": "jsonl", ".json.gz": "jsonl",
}  # fmt: skip
_SEPARATORS = {
    "\t": ("tabs", "set data.format to tsv"),
    ",": ("commas", "set data.format to csv"),
    ";": ("semicolons", "save it with commas"),
    "|": ("vertical bars", "save it with commas"),
}
_LONGEST_FIELD = 1 << 30
_REPORT_EVERY = 10_000


def format_of(files: tuple[Path, ...], *, default: str | None = None) -> str:
    """The format that the files' names tell; raises `DataError` if they don't, or differ, and there is no
    default."""
    formats = {next((f for end, f in _SUFFIXES.items() if file.name.lower().endswith(end)), "") for file in files}
    if len(formats) == 1 and "" not in formats:
        return formats.pop()
    if default is not None:
        return default
    names = ", ".join(file.name for file in files[:3]) + (", …" if len(files) > 3 else "")
    known = ", ".join(_SUFFIXES)
    raise DataError(f"the format of {names} can't be told by the name ({known}); set data.format.")


def read_csv(files: tuple[Path, ...], section: Data) -> Columns:
    """Comma-separated values (RFC 4180) with a header."""
    return _read_separated(files, section, ",")


def read_tsv(files: tuple[Path, ...], section: Data) -> Columns:
    """Tab-separated values with a header."""
    return _read_separated(files, section, "\t")


def read_jsonl(files: tuple[Path, ...], section: Data) -> Columns:
    """One JSON object per line, or one array of objects per file."""
    columns = _empty(section)
    for file in files:
        lines: array[int] = array("q")
        columns.begin(file.name, lines)
        with _text_of(file) as stream, progress(f"Reading {file.name}") as advance:
            for line, record in _json_records(stream, file):
                lines.append(line)
                _append_record(columns, record, section, f"{file.name}, line {line}")
                if len(lines) % _REPORT_EVERY == 0:
                    advance(_REPORT_EVERY)
    return columns


def read_parquet(files: tuple[Path, ...], section: Data) -> Columns:
    """Parquet; only the columns that are needed are read."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = _empty(section)
    for file in files:
        columns.begin(file.name)
        try:
            with pq.ParquetFile(file) as parquet:
                schema = parquet.schema_arrow
                positions = require_columns(section, schema.names, file.name)
                text_type = schema.field(positions["text"]).type
                if pa.types.is_dictionary(text_type):
                    text_type = text_type.value_type
                strings = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
                if not any(holds(text_type) for holds in strings):
                    raise DataError(f"{file.name}: column {section.text!r} (data.text) holds {text_type}, not text.")
                with progress(f"Reading {file.name}", parquet.metadata.num_rows) as advance:
                    for batch in parquet.iter_batches(columns=list(wanted_columns(section).values())):
                        columns.texts.extend(batch[section.text].to_pylist())
                        columns.labels.extend(batch[section.label].to_pylist())
                        if columns.times is not None and section.time is not None:
                            columns.times.extend(batch[section.time].to_pylist())
                        advance(batch.num_rows)
        except UnicodeDecodeError as error:
            raise DataError(f"{file.name}: a string in it is not UTF-8 ({error.reason}).") from error
        except (pa.ArrowException, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise DataError(f"{file.name} can't be read as Parquet: {first_line(error)}.") from error
    return columns


def read_ratings(files: tuple[Path, ...], section: Data) -> Columns:
    """`id <tab> mean rating <tab> text` per line, no header, no quoting: what is after the second tab is the
    text."""
    columns = _empty(section)
    if section.time is not None:
        raise DataError("data.time is set, but the format ratings has no time column.")
    for file in files:
        lines: array[int] = array("q")
        columns.begin(file.name, lines)
        with _text_of(file) as stream:
            for number, raw in enumerate(_lines(stream), start=1):
                line = raw.rstrip("\r\n")
                if not line.strip():
                    continue
                parts = line.split("\t", 2)
                if len(parts) < 3:
                    raise DataError(
                        f"{file.name}, line {number}: {len(parts)} tab-separated fields; ratings have three: "
                        "id, mean rating, text."
                    )
                columns.labels.append(parts[1])
                columns.texts.append(parts[2])
                lines.append(number)
    return columns


READERS: dict[str, Callable[[tuple[Path, ...], Data], Columns]] = {
    "csv": read_csv,
    "tsv": read_tsv,
    "jsonl": read_jsonl,
    "parquet": read_parquet,
    "ratings": read_ratings,
}


def _empty(section: Data) -> Columns:
    return Columns(times=None if section.time is None else [])


def _read_separated(files: tuple[Path, ...], section: Data, delimiter: str) -> Columns:
    columns = _empty(section)
    before = csv.field_size_limit(_LONGEST_FIELD)
    try:
        for file in files:
            _append_separated(columns, file, section, delimiter)
    finally:
        csv.field_size_limit(before)
    return columns


def _append_separated(columns: Columns, file: Path, section: Data, delimiter: str) -> None:
    lines: array[int] = array("q")
    columns.begin(file.name, lines)
    start = 1
    with _text_of(file) as stream, progress(f"Reading {file.name}") as advance:
        rows = csv.reader(stream, delimiter=delimiter, strict=True)
        try:
            header = next(rows, None)
            if header is None:
                raise DataError(f"{file.name} is empty: it has not even a header.")
            positions = _header_positions(header, section, file, delimiter)
            text_at, label_at, time_at = positions["text"], positions["label"], positions.get("time")
            width, start = len(header), rows.line_num + 1
            for row in rows:
                if len(row) != width and row:
                    raise DataError(
                        f"{file.name}, line {start}: {len(row)} fields, but the header has {width}. A field "
                        f"with a {'comma' if delimiter == ',' else 'tab'} or a new line in it needs quotes "
                        "around it."
                    )
                if row:
                    columns.texts.append(row[text_at])
                    columns.labels.append(row[label_at])
                    if columns.times is not None and time_at is not None:
                        columns.times.append(row[time_at])
                    lines.append(start)
                    if len(lines) % _REPORT_EVERY == 0:
                        advance(_REPORT_EVERY)
                start = rows.line_num + 1
        except csv.Error as error:
            raise DataError(
                f"{file.name}, in the row that begins on line {start}: {error}. A quote inside a "
                'quoted field is written twice ("").'
            ) from error


def _header_positions(header: list[str], section: Data, file: Path, delimiter: str) -> dict[str, int]:
    try:
        return require_columns(section, header, file.name)
    except DataError as error:
        other = next(
            (sign for sign in _SEPARATORS if sign != delimiter and len(header) == 1 and sign in header[0]),
            None,
        )
        if other is None:
            raise
        name, advice = _SEPARATORS[other]
        raise DataError(f"{error} Its columns seem to be separated by {name}: {advice}.") from error


def _json_records(stream: IO[str], file: Path) -> Iterator[tuple[int, object]]:
    """Records with the line that each is on; of an array, whose lines mean nothing, its place in the
    array."""
    head = stream.read(1)
    while head.isspace() and (more := stream.read(1)):
        head += more
    if head.endswith("["):
        records = _parsed(head + stream.read(), file, 1)
        yield from enumerate(records if isinstance(records, list) else [], start=1)
        return
    for number, line in enumerate(_lines(stream, head), start=1):
        if line.strip():
            yield number, _parsed(line, file, number)


def _parsed(text: str, file: Path, line: int) -> object:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{file.name}, line {line + error.lineno - 1}, column {error.colno}: not JSON: {error.msg}. Allowed are "
            "one object per line, or one array of objects."
        ) from error
    except RecursionError as error:
        raise DataError(f"{file.name}, line {line}: nested too deep.") from error
    except ValueError as error:  # Python's limit against numbers that take it minutes
        raise DataError(f"{file.name}, line {line}: holds a number of thousands of digits; quote it.") from error


def _append_record(columns: Columns, record: object, section: Data, place: str) -> None:
    if not isinstance(record, dict):
        kind = "an array" if isinstance(record, list) else f"only {json.dumps(record, ensure_ascii=False)[:60]}"
        raise DataError(f"{place}: holds {kind}, not an object with the columns as keys.")
    if section.text not in record or section.label not in record or (section.time and section.time not in record):
        require_columns(section, list(record), place)
    columns.texts.append(record[section.text])
    columns.labels.append(record[section.label])
    if columns.times is not None and section.time is not None:
        columns.times.append(record[section.time])


@contextmanager
def _text_of(file: Path) -> Iterator[IO[str]]:
    """`file` as UTF-8 text, with or without a byte-order mark, unpacked if it is gzip.

    Raises `DataError` that says where it is not UTF-8.
    """
    try:
        with _bytes_of(file) as stream, io.TextIOWrapper(stream, encoding="utf-8-sig", newline="") as text:
            yield text
    except UnicodeDecodeError as error:
        raise DataError(_not_utf8(file)) from error
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{file.name} can't be unpacked as gzip: {first_line(error)}.") from error


def _bytes_of(file: Path) -> IO[bytes]:
    # Closed by the caller.
    stream = gzip.open(file, "rb") if file.name.lower().endswith(".gz") else file.open("rb")  # noqa: SIM115
    return cast("IO[bytes]", stream)


def _lines(stream: IO[str], rest: str = "") -> Iterator[str]:
    """Lines by line feed alone: a carriage return or U+2028 inside a text doesn't end one.

    `rest` is what was read already.
    """
    while chunk := stream.read(1 << 20):
        *whole, rest = (rest + chunk).split("\n")
        yield from whole
    if rest:
        yield rest


def _not_utf8(file: Path) -> str:
    """Which byte of which line is at fault; the decoder only knows its place in a buffer."""
    with _bytes_of(file) as stream:
        other = _other_kind(stream.read(64))
    if other is not None:
        return f"{file.name} is {other}"
    with _bytes_of(file) as stream:
        for number, line in enumerate(stream, start=1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                return (
                    f"{file.name}, line {number}, byte {error.start + 1} of the line: "
                    f"0x{line[error.start]:02x} is not UTF-8. Convert the file, for example: iconv -f "
                    "WINDOWS-1252 -t UTF-8 (Chinese: GB18030)."
                )
    return f"{file.name} is not UTF-8."


def _other_kind(head: bytes) -> str | None:
    """What a file that begins with `head` is instead of text in UTF-8, and what to do about it."""
    for beginning, kind in _BEGINNINGS.items():
        if head.startswith(beginning):
            return kind
    pairs = head[: len(head) // 2 * 2]
    for encoding, zeros in (("UTF-16LE", pairs[1::2]), ("UTF-16BE", pairs[::2])):
        # Names of columns are mostly ASCII, of which every second byte is zero there.
        if zeros.count(0) > len(zeros) / 2:
            return f"{encoding}, not UTF-8. Convert it: iconv -f {encoding} -t UTF-8."
    return None


_BEGINNINGS = {
    b"PK\x03\x04": "a ZIP archive, as Excel's .xlsx files are, and no text. Save the sheet as CSV in UTF-8.",
    b"\xd0\xcf\x11\xe0": "an old Excel file (.xls) and no text. Save the sheet as CSV in UTF-8.",
    b"\x1f\x8b": "packed with gzip. End its name in .gz, as in table.csv.gz.",
    b"PAR1": "Parquet. End its name in .parquet, or set data.format.",
    b"\xff\xfe\x00\x00": "UTF-32, not UTF-8. Convert it: iconv -f UTF-32 -t UTF-8.",
    b"\x00\x00\xfe\xff": "UTF-32, not UTF-8. Convert it: iconv -f UTF-32 -t UTF-8.",
    b"\xff\xfe": "UTF-16, not UTF-8. Convert it: iconv -f UTF-16 -t UTF-8.",
    b"\xfe\xff": "UTF-16, not UTF-8. Convert it: iconv -f UTF-16 -t UTF-8.",
}
