"""Tables of a user's, and what a load test says if one can't be read."""

from pathlib import Path

import pyarrow as pa

from slipway import tables
from slipway.errors import DataError, LoadTestError


def read_table(source: Path) -> pa.Table:
    """The table in `source`, of a kind that `slipway.tables` reads; raises `LoadTestError` as that does `DataError`."""
    try:
        return tables.read_table(source)
    except DataError as error:
        raise LoadTestError(str(error)) from error
