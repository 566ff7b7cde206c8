"""The arrivals of a recording, with the bursts and the lulls that no model of them has.

Reads the column of timestamps whole and sorts it (an access log is written in the order of the answers): 8 bytes an
arrival, however long the run is. What the recording's requests held is not replayed.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from loadtests.arrivals.rescaling import CHUNK, FloatArray, Window
from loadtests.tables import read_table
from slipway.errors import LoadTestError
from slipway.recipe.arrivals import Replay


def replay(rng: np.random.Generator, window: Window, section: Replay) -> Iterator[FloatArray]:  # noqa: ARG001
    """The recorded arrivals from the first on, `section.speed` times as fast; the warm-up takes the first of them.

    Raises `LoadTestError` if the recording can't be read or has no such timestamps.
    """
    times = recorded_s(section)
    times = (times - times[0]) / section.speed - window.warmup_s
    times = times[: int(np.searchsorted(times, window.duration_s))]
    return (times[first : first + CHUNK] for first in range(0, len(times), CHUNK))


def recorded_s(section: Replay) -> FloatArray:
    """The recording's timestamps in s, ascending."""
    file = Path(section.source.removeprefix("file:"))
    table = read_table(file)
    if section.column not in table.column_names:
        found = ", ".join(table.column_names) or "none"
        raise LoadTestError(f"{file} has no column {section.column!r}, only {found}; set arrivals.column.")
    column = table.column(section.column)
    try:
        seconds = _seconds(column)
    except pa.ArrowException as error:
        raise LoadTestError(
            f"{file}: column {section.column!r} holds {column.type}, not timestamps or seconds: "
            f"{str(error).splitlines()[0]}"
        ) from error
    if len(seconds) == 0 or not np.isfinite(seconds).all():
        raise LoadTestError(f"{file}: column {section.column!r} has no timestamps, or some are missing.")
    return np.sort(seconds)


def _seconds(column: pa.ChunkedArray) -> FloatArray:
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        zoned = pc.any(pc.match_substring_regex(column, r"(Z|[+-]\d\d:?\d\d)$")).as_py()
        # Container runtimes log nanoseconds, which Arrow doesn't read as anything coarser.
        column = column.cast(pa.timestamp("ns", tz="UTC" if zoned else None))
    if pa.types.is_timestamp(column.type):
        microseconds = column.cast(pa.timestamp("us", tz=column.type.tz), safe=False).cast(pa.int64())
        return np.asarray(pc.fill_null(microseconds.cast(pa.float64()), np.nan), dtype=np.float64) / 1e6
    return np.asarray(pc.fill_null(column.cast(pa.float64()), np.nan), dtype=np.float64)
