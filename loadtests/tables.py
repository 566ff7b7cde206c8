"""Tables of a user's: Parquet, CSV or JSON lines, by the ending of the name."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet as pq

from slipway.errors import LoadTestError


def _read_log(source: Path) -> pa.Table:
    """JSON lines of a log that is still written to: one that is cut at the end of the file has not come yet."""
    with pa.memory_map(str(source)) as file:
        content = file.read_buffer()
        tail = content.slice(max(0, len(content) - _LONGEST_LINE)).to_pybytes()
        last = tail[tail.rfind(b"\n") + 1 :]
        try:
            json.loads(last)
        except ValueError:
            content = content.slice(0, len(content) - len(last))
        return pyarrow.json.read_json(pa.BufferReader(content))


_LONGEST_LINE = 1 << 20
_READERS = {
    ".parquet": pq.read_table,
    ".csv": pyarrow.csv.read_csv,
    ".jsonl": pyarrow.json.read_json,
    ".log": _read_log,
}


def read_table(source: Path) -> pa.Table:
    """The table in `source`. Raises `LoadTestError` that names the file and what is wrong."""
    reader = _READERS.get(source.suffix.lower())
    if reader is None:
        raise LoadTestError(f"{source} is not a kind of file that can be read; allowed: {', '.join(_READERS)}.")
    try:
        table = reader(source)
    except FileNotFoundError:
        raise LoadTestError(f"{source} does not exist.") from None
    except (pa.ArrowException, OSError) as error:
        raise LoadTestError(f"{source} can't be read: {str(error).splitlines()[0]}") from error
    twice = next((name for name in table.column_names if table.column_names.count(name) > 1), None)
    if twice is not None:
        raise LoadTestError(f"{source} has two columns named {twice!r}; rename one.")
    return table
