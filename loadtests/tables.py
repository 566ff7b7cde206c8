"""Tables of a user's: Parquet, CSV or JSON lines, by the ending of the name."""

from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet as pq

from slipway.errors import LoadTestError

_READERS = {
    ".parquet": pq.read_table,
    ".csv": pyarrow.csv.read_csv,
    ".jsonl": pyarrow.json.read_json,
    ".log": pyarrow.json.read_json,
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
