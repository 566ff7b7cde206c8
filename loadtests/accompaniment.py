"""What goes on beside the load of one run: the monitor and the faults, and the timeline that they end in.

The generator's clock starts when its connections are up, which only it knows. It says the moment on the machine's
monotonic clock, with its progress and in the samples' metadata (`STARTED`), so that what was seen here and what was
seen there are on one time axis, and a fault comes when the recipe says.
"""

import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyarrow.parquet as pq

from loadtests.chaos import Chaos
from loadtests.monitor import Monitor
from loadtests.recovery import records_of
from loadtests.samples import STARTED
from loadtests.server import Server
from loadtests.timeline import tell
from loadtests.triton_statistics import read_counters
from slipway.recipe import LoadTest
from slipway.timeline import Timeline


class Accompaniment:
    """Of one run at `address` (`number:port`); enter it before the load begins."""

    def __init__(self, section: LoadTest, address: str, model: str, metrics_url: str | None = None) -> None:
        """Raises `LoadTestError` if the faults of `section` may not be made there, or `metrics_url` says nothing."""
        self._section = section
        local = is_local(address)
        server = Server.at(address) if local else None
        if metrics_url is not None:
            read_counters(metrics_url, model)
        else:
            metrics_url = server.metrics_url() if server else None
        self._chaos = Chaos.on(server, section.chaos, section.duration_s, local=local)
        self._monitor = Monitor(server, metrics_url, model)
        self._zero_s: float | None = None

    def __enter__(self) -> Self:
        self._monitor.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._chaos.end()
        finally:
            self._monitor.__exit__(kind, error, trace)

    def progressed(self, report: dict[str, Any]) -> None:
        """The generator says how far it is."""
        if self._zero_s is None and report.get("zero_s") is not None:
            self._zero_s = float(report["zero_s"])
            self._chaos.begin(self._zero_s)

    def timeline(self, samples: Path) -> Timeline:
        """After the run: all that was seen, on the clock of the samples."""
        section = self._section
        zero_s = _started_s(samples) or self._zero_s or time.monotonic()
        usage, work = self._monitor.over(zero_s, zero_s + section.duration_s)
        return tell(
            samples,
            section.duration_s,
            section.warmup_s,
            readings=self._monitor.readings(zero_s),
            usage=usage,
            work=work,
            faults=records_of(self._chaos.injected, samples, zero_s, section.slo),
        )


def is_local(address: str) -> bool:
    """Whether `number:port` is this machine's loopback."""
    return address.startswith(("127.", "[::1]"))


def _started_s(samples: Path) -> float | None:
    metadata = pq.read_schema(samples).metadata or {}
    value = metadata.get(STARTED.encode())
    return float(value) if value else None
