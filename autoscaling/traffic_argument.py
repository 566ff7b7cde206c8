"""Traffic as it is written on a command line: a shape with its rates, or a file of recorded arrivals.

constant:500        500 requests/s
ramp:200..5000      up in the first half, then level
spike:500..4000     five minutes at the higher rate after a third of the time
diurnal:200..5000   a day as a sine, its low point at midnight
arrivals.csv        one column of times in seconds or of ISO timestamps: Parquet, CSV or JSON lines
"""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np

from autoscaling.traffic import Traffic, constant, diurnal, ramp, recorded, spike
from slipway.errors import DataError, SlipwayError

_SHAPES: dict[str, tuple[Callable[..., Traffic], int]] = {
    "constant": (constant, 1),
    "ramp": (ramp, 2),
    "spike": (spike, 2),
    "diurnal": (diurnal, 2),
}
"""By name: what makes it, of how many rates and a duration."""
_WRITTEN = re.compile(r"([a-z]+):(.+)")
_MOST_SECONDS = 7 * 86_400
_MOST_RATE = 1e7


def parse_traffic(text: str, duration_s: int) -> Traffic:
    """The traffic that `text` says; raises `SlipwayError` with what is allowed."""
    if not 0 < duration_s <= _MOST_SECONDS:
        raise SlipwayError(f"a traffic of {duration_s} s can't be planned for; up to a week can.")
    written = _WRITTEN.fullmatch(text)
    if written is None or Path(text).exists():
        return _read(Path(text))
    given = written[2].split("..")
    make, wanted = _SHAPES.get(written[1], (constant, 0))
    if len(given) != wanted:
        raise SlipwayError(
            f"--traffic {text} is no traffic; allowed: constant:RATE, ramp:FROM..TO, spike:BASE..PEAK, "
            "diurnal:LOW..HIGH, or a file of recorded arrival times."
        )
    try:
        rates = [float(rate) for rate in given]
    except ValueError:
        raise SlipwayError(f"--traffic {text}: the rates must be numbers, as in ramp:200..5000.") from None
    if not all(0 <= rate <= _MOST_RATE for rate in rates):
        raise SlipwayError(f"--traffic {text}: rates from 0 to {_MOST_RATE:,.0f} requests/s can be planned for.")
    return make(*rates, duration_s)


def _read(path: Path) -> Traffic:
    import pyarrow as pa

    from slipway.tables import read_table

    try:
        table = read_table(path)
    except DataError as error:
        raise SlipwayError(f"--traffic {error}") from error
    try:
        column = table.column(0)
        if pa.types.is_string(column.type):
            column = column.cast(pa.timestamp("us"))
        if pa.types.is_timestamp(column.type):
            times = column.cast(pa.timestamp("us")).cast(pa.int64()).to_numpy() / 1e6
        else:
            times = column.cast(pa.float64()).to_numpy()
        seconds = float(np.ptp(times)) if len(times) else 0.0
        if seconds >= _MOST_SECONDS:
            raise SlipwayError(
                f"--traffic {path}: {seconds / 86_400:.6g} days are too long; up to a week can be planned."
            )
        return recorded(np.asarray(times), name=path.name)
    except (pa.ArrowException, ValueError, IndexError) as error:
        raise SlipwayError(
            f"--traffic {path}: its first column must be times, in seconds or as ISO timestamps: {error}"
        ) from error
