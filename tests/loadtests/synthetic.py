"""Samples of a run that never was: a queue with several instances, and whatever shall happen to it.

`simulate` is the recursion of Kiefer and Wolfowitz for G/G/n first come first served, so its capacity is known: n
instances over the service time.
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from loadtests.samples import SCHEMA


@dataclass(frozen=True)
class Happening:
    """From `at_s` for `for_s`: `stall` (nobody is served), or failures of a kind for `share` of the requests."""

    at_s: float
    for_s: float
    kind: str
    share: float = 1.0


@dataclass(frozen=True)
class Queue:
    """A server: `instances` that each take `service_ms` (`spread`: of its logarithm)."""

    instances: int = 2
    service_ms: float = 8.0
    spread: float = 0.2
    happenings: tuple[Happening, ...] = field(default=())

    def simulate(self, rate: float, duration_s: float, warmup_s: float = 0.0, seed: int = 0) -> pa.Table:
        """One run under Poisson arrivals."""
        rng = np.random.default_rng(seed)
        at = np.cumsum(rng.exponential(1 / rate, int(rate * (duration_s + warmup_s) * 1.2) + 20)) - warmup_s
        at = at[at < duration_s]
        service = self.service_ms / 1000 * np.exp(rng.normal(0, self.spread, len(at)))
        free = np.full(self.instances, -float(warmup_s))
        ends = np.empty(len(at))
        for row, moment in enumerate(at):
            first = int(np.argmin(free))
            ends[row] = free[first] = self._open(max(moment, free[first])) + service[row]
        outcome = np.full(len(at), "ok", dtype=object)
        for each in self.happenings:
            if each.kind != "stall":
                inside = (at >= each.at_s) & (at < each.at_s + each.for_s) & (rng.random(len(at)) < each.share)
                outcome[inside] = each.kind
        lag = rng.gamma(2, 0.1, len(at))
        latency = (ends - at) * 1000 + lag
        columns = {
            "scheduled_s": at,
            "lag_ms": lag,
            "service_ms": latency - lag,
            "latency_ms": latency,
            "protocol": np.where(rng.random(len(at)) < 0.5, "grpc", "http").tolist(),
            "outcome": outcome.tolist(),
            "detail": ["" if kind == "ok" else f"made {kind}" for kind in outcome],
            "text_index": np.arange(len(at), dtype=np.int32) % 50,
            "warmup": at < 0,
            "texts": np.ones(len(at), np.int16),
            "version": ["1"] * len(at),
        }
        return pa.table({name: columns[name] for name in SCHEMA.names}, schema=SCHEMA)

    def _open(self, moment_s: float) -> float:
        for each in self.happenings:
            if each.kind == "stall" and each.at_s <= moment_s < each.at_s + each.for_s:
                return each.at_s + each.for_s
        return moment_s


def write(table: pa.Table, file: Path, batch: int = 1000) -> Path:
    """In small row groups, as a long run leaves them."""
    pq.write_table(table, file, row_group_size=batch)
    return file
