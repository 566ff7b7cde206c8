"""The measured window of a run, as small as it can be judged from: 20 bytes a request.

A table of samples has ten times that, most of it names that repeat, so the file is read a few row groups at a time and
only numbers are kept. Percentiles need every latency; whoever wants less memory than this wants a histogram, whose
percentiles nobody can check.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from slipway.verdict import GENERATORS, Generator

COLUMNS = ["lag_ms", "latency_ms", "protocol", "outcome", "detail", "warmup", "texts", "version"]
"""All that is read."""

_EXAMPLES = 10
_GROUPS_AT_A_TIME = 8


@dataclass(frozen=True)
class Codes:
    """A column of names: `names[code]` for each request."""

    names: list[str]
    codes: npt.NDArray[np.int16]

    def where(self, name: str) -> npt.NDArray[np.bool_]:
        """Requests of that name."""
        known = self.names.index(name) if name in self.names else -1
        found: npt.NDArray[np.bool_] = self.codes == known
        return found

    def counts(self) -> dict[str, int]:
        """Requests by name, in the order of names."""
        counted: list[int] = np.bincount(self.codes, minlength=len(self.names)).tolist()
        return dict(sorted(zip(self.names, counted, strict=True)))


@dataclass(frozen=True)
class Measured:
    """Requests that were not warming up, in the order of their schedule; arrays `[requests]`."""

    latency_ms: npt.NDArray[np.float64]
    lag_ms: npt.NDArray[np.float64]
    outcome: Codes
    protocol: Codes
    version: Codes
    texts: int
    examples: list[str]
    """The first few failures."""
    generators: list[Generator]
    """What the processes that sent said about themselves; none if nobody did."""

    def __len__(self) -> int:
        return len(self.latency_ms)


def of_table(samples: pa.Table) -> Measured:
    """What a table of samples (columns as `SAMPLE_COLUMNS`) holds."""
    return _collect([samples.select(COLUMNS)], samples.num_rows, samples.schema.metadata or {})


def of_file(file: Path) -> Measured:
    """What a file of samples holds; reads it bit by bit."""
    with pq.ParquetFile(file, read_dictionary=["protocol", "outcome", "detail", "version"]) as samples:
        metadata = {**(samples.schema_arrow.metadata or {}), **(samples.metadata.metadata or {})}
        return _collect(_parts(samples), samples.metadata.num_rows, metadata)


def _parts(samples: pq.ParquetFile) -> Iterator[pa.Table]:
    for first in range(0, samples.num_row_groups, _GROUPS_AT_A_TIME):
        groups = list(range(first, min(first + _GROUPS_AT_A_TIME, samples.num_row_groups)))
        yield samples.read_row_groups(groups, columns=COLUMNS)


def _collect(parts: Iterable[pa.Table], rows: int, metadata: dict[bytes, bytes]) -> Measured:
    latency, lag = np.empty(rows), np.empty(rows)
    names: dict[str, dict[str, int]] = {"outcome": {}, "protocol": {}, "version": {}}
    codes = {column: np.empty(rows, np.int16) for column in names}
    examples: list[str] = []
    taken = texts = 0
    for part in parts:
        measured = part.filter(pc.invert(part["warmup"]))
        here = slice(taken, taken + measured.num_rows)
        latency[here], lag[here] = measured["latency_ms"].to_numpy(), measured["lag_ms"].to_numpy()
        for column, known in names.items():
            codes[column][here] = _encode(measured[column], known)
        texts += pc.sum(measured["texts"]).as_py() or 0
        if len(examples) < _EXAMPLES:
            examples += _failures(measured, _EXAMPLES - len(examples))
        taken = here.stop
    encoded = {column: Codes(list(known), codes[column][:taken]) for column, known in names.items()}
    said = json.loads(metadata.get(GENERATORS.encode(), b"[]"))
    generators = [Generator.model_validate(entry) for entry in said]
    return Measured(latency[:taken], lag[:taken], **encoded, texts=texts, examples=examples, generators=generators)


def _encode(column: pa.ChunkedArray, known: dict[str, int]) -> npt.NDArray[np.int16]:
    column = column.cast(pa.string())
    for name in pc.unique(column).to_pylist():
        known.setdefault(name, len(known))
    places = pc.index_in(column, value_set=pa.array(list(known), pa.string()))
    return np.asarray(places.to_numpy(), dtype=np.int16)


def _failures(measured: pa.Table, most: int) -> list[str]:
    failed = measured.filter(pc.not_equal(measured["outcome"].cast(pa.string()), "ok")).slice(0, most)
    return [f"{row['protocol']} {row['outcome']}: {row['detail']}" for row in failed.to_pylist()]
