"""Tables that a user names: Parquet, CSV, JSON lines, or a log of JSON lines, by the ending of the name, read whole.

For what is small beside the memory: texts to distil from or to load an endpoint with, recorded arrivals. Training
data, with its splits and its line numbers in errors, is read by `training.tables`; tables of any size are scored in
chunks by `serving.client`.
"""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet as pq

from slipway.errors import DataError

_LONGEST_LINE = 1 << 20
"""Bytes of a line of a log, at most."""


def read_table(file: Path) -> pa.Table:
    """The table in `file`; raises `DataError` that names the file and what is wrong, such as two columns of a name."""
    reader = _READERS.get(file.suffix.lower())
    if reader is None:
        raise DataError(f"{file} is not a kind of file that can be read; allowed: {', '.join(_READERS)}.")
    try:
        table = reader(file)
    except FileNotFoundError:
        raise DataError(f"{file} does not exist.") from None
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{file} can't be read: {str(error).splitlines()[0]}") from error
    twice = next((name for name in table.column_names if table.column_names.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"{file} has two columns named {twice!r}; rename one.")
    return _plain(table)


def _plain(table: pa.Table) -> pa.Table:
    """`table` with each column of categories (pandas, polars) or string views as one of the values themselves."""
    for place, field in enumerate(table.schema):
        kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
        if pa.types.is_string_view(kind) or (kind != field.type and pa.types.is_string(kind)):
            kind = pa.large_string()  # a text that is there many times may be more than a string column holds
        if kind != field.type:
            table = table.set_column(place, field.name, table.column(place).cast(kind))
    return table


def _read_csv(file: Path) -> pa.Table:
    # Without this, a text with a line break in it is torn where a block of the file ends.
    table = pyarrow.csv.read_csv(file, parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True))
    broken = next((field.name for field in table.schema if pa.types.is_binary(field.type)), None)
    if broken is not None:
        raise DataError(f"{file}: column {broken!r} is not UTF-8; save it as UTF-8.")
    return table


def _read_log(file: Path) -> pa.Table:
    """JSON lines of a log that is still written to: one that is cut at the end of the file has not come yet."""
    with pa.memory_map(str(file)) as mapped:
        content = mapped.read_buffer()
        tail = content.slice(max(0, len(content) - _LONGEST_LINE)).to_pybytes()
        last = tail[tail.rfind(b"\n") + 1 :]
        try:
            json.loads(last)
        except ValueError:
            content = content.slice(0, len(content) - len(last))
        return pyarrow.json.read_json(pa.BufferReader(content))


_READERS = {
    ".parquet": pq.read_table,
    ".csv": _read_csv,
    ".jsonl": pyarrow.json.read_json,
    ".log": _read_log,
}
