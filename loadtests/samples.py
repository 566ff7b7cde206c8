"""One row per scheduled arrival, filled in as the run goes.

The columns are arrays of the plan's length from the start: recording is two stores, nothing grows, and the garbage
collector has nothing to walk while requests are timed.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from loadtests.plan import Plan
from slipway.verdict import SAMPLE_COLUMNS

SCHEMA = pa.schema([(name, pa.type_for_alias(kind)) for name, kind in SAMPLE_COLUMNS.items()])

STARTED = "started_monotonic_s"
"""Key of the file's metadata: the start of the measured window on the generator's monotonic clock."""

_OUTCOMES = ("timeout", "ok", "wrong", "error")


class Recorder:
    """What happened to each arrival of `plan`; times are seconds on the plan's clock."""

    def __init__(self, plan: Plan, protocols: list[str]) -> None:
        self._plan = plan
        self._protocols = protocols
        self._sent_s = np.full(len(plan), np.nan)
        self._answered_s = np.full(len(plan), np.nan)
        self._outcome = np.zeros(len(plan), np.int8)
        self._details: dict[int, str] = {}
        self._started_s: float | None = None

    def started(self, at_s: float) -> None:
        """The measured window starts at `at_s` of the monotonic clock."""
        self._started_s = at_s

    def sent(self, row: int, at_s: float) -> None:
        """The request of `row` was handed to its client."""
        self._sent_s[row] = at_s

    def answered(self, row: int, at_s: float, outcome: str, detail: str = "") -> None:
        """The request of `row` ended."""
        self._answered_s[row] = at_s
        self._outcome[row] = _OUTCOMES.index(outcome)
        if detail:
            self._details[row] = detail

    def close(self, at_s: float) -> None:
        """The run is over: what has no answer is a timeout with the time it took so far."""
        never_sent = np.isnan(self._sent_s)
        for row in np.flatnonzero(never_sent):
            self._details[int(row)] = "never sent: the generator was too far behind its schedule"
        for row in np.flatnonzero(np.isnan(self._answered_s) & ~never_sent):
            self._details[int(row)] = "no answer by the end of the run"
        self._sent_s[never_sent] = at_s
        self._answered_s[np.isnan(self._answered_s)] = at_s

    def table(self) -> pa.Table:
        """All rows, in the order of the schedule, as `SAMPLE_COLUMNS` says."""
        scheduled = self._plan.scheduled_s
        columns = {
            "scheduled_s": scheduled,
            "lag_ms": (self._sent_s - scheduled) * 1000,
            "service_ms": (self._answered_s - self._sent_s) * 1000,
            "latency_ms": (self._answered_s - scheduled) * 1000,
            "protocol": [self._protocols[index] for index in self._plan.protocol],
            "outcome": [_OUTCOMES[code] for code in self._outcome],
            "detail": [self._details.get(row, "") for row in range(len(self._plan))],
            "text_index": self._plan.text_index,
            "warmup": scheduled < 0,
        }
        metadata = {} if self._started_s is None else {STARTED: repr(self._started_s)}
        return pa.table(columns, schema=SCHEMA.with_metadata(metadata))


def write_samples(table: pa.Table, file: Path) -> None:
    """Write `table` whole or not at all."""
    partial = file.with_name(f".{file.name}.partial")
    pq.write_table(table, partial, compression="zstd")
    partial.rename(file)
