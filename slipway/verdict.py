"""What a verdict holds, typed: was the objective met at the offered rate, and may the run be believed?

    verdict/
      manifest.json
      verdict.json      `Verdict` below
      timeline.json     `slipway.timeline.Timeline`
      samples.parquet   one row per request, see `SAMPLE_COLUMNS`
      report.html       the figures of timeline.json; left out where nothing is installed that draws

Every latency counts from the scheduled arrival (not from when the generator got round to sending), in ms.
"""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

VERDICT = "verdict.json"
SAMPLES = "samples.parquet"

SAMPLE_COLUMNS = {
    "scheduled_s": "float64",  # seconds after the start of the measured window; negative while warming up
    "lag_ms": "float64",  # sent minus scheduled: the generator's own delay
    "service_ms": "float64",  # answered minus sent
    "latency_ms": "float64",  # answered minus scheduled: what a caller would have seen
    "protocol": "string",  # grpc, http
    "outcome": "string",  # ok, wrong, error, timeout
    "detail": "string",  # the error's text, or "expected X, got Y"; empty when ok
    "text_index": "int32",  # row of expected.parquet
    "warmup": "bool",  # sent before the measured window; excluded from every figure
    "texts": "int16",  # texts in the request; text_index is the first
    "version": "string",  # of the model that answered; empty if it didn't say
}

PERCENTILES = {"p50_ms": "p50", "p95_ms": "p95", "p99_ms": "p99", "p999_ms": "p99.9"}
"""Objectives about latency: which percentile each is about, as a person writes it."""

GENERATORS = "slipway.generators"
"""Key of the samples' metadata that holds a JSON list of `Generator`, one for each process that sent."""

Interval = tuple[float, float | None]
"""95 % confidence; None: the sample doesn't bound it."""


class Generator(BaseModel):
    """How one process that sent was doing while it did."""

    model_config = ConfigDict(extra="forbid")
    sending_cpu: float
    """Cores that the sending thread used; one is all that it can have."""
    process_cpu: float
    """Cores that the process used."""
    longest_stall_ms: float
    """The event loop came back so late, once."""
    longest_collection_ms: float
    """Longest pause of Python's garbage collector."""
    clock_jump_s: float
    """The wall clock was set by so much, at once."""
    suspended_s: float
    """Time that the machine slept."""
    exhausted: int
    """Requests that failed for want of a socket, port or buffer on this side."""
    unsent: int
    """Requests that it gave up on before they were sent."""
    host: str = ""
    """Machine or pod, if it was not the master's own."""
    start_error_ms: float = 0.0
    """Its start may have been so far from the common one: no better do the two clocks know each other."""
    clock_drift_ms: float = 0.0
    """At the end its clock had moved by so much against the master's."""


class Latency(BaseModel):
    """Percentiles in ms over the measured window, failures included with the time they took."""

    model_config = ConfigDict(extra="forbid")
    requests: int
    p50: float
    p90: float
    p95: float
    p99: float
    p999: float
    max: float
    mean: float


class Objective(BaseModel):
    """One line of the SLO: what was asked, what was measured."""

    model_config = ConfigDict(extra="forbid")
    name: str
    """`p50_ms`, `p95_ms`, `p99_ms`, `p999_ms`, `error_rate`, `wrong`, `goodput`."""
    limit: float
    """The most; of `goodput` the least."""
    measured: float
    met: bool
    interval: Interval | None = None
    """Of what was measured; None where there is none to be had."""


class Verdict(BaseModel):
    """What `verdict.json` holds."""

    model_config = ConfigDict(extra="forbid")
    outcome: Literal["met", "missed", "invalid"]
    """`invalid`: the generator or its clock failed, so the figures say nothing about the server."""
    reason: str
    """One sentence for a person."""
    invalid_because: list[str] = []
    """Everything that makes the run invalid."""
    cautions: list[str] = []
    """What a reader has to know before believing a figure."""
    loop: Literal["open", "closed"] = "open"
    users: int | None = None
    """Of a closed loop."""
    offered_rate: float
    """Requests/s: those that the recipe asked for; the mean over the window where they change or nobody asked."""
    scheduled: int
    """Arrivals in the measured window."""
    achieved_rate: float
    """Correct answers per second of the measured window."""
    duration_s: float
    warmup_s: float
    arrivals: str
    seed: int
    protocols: list[str]
    mix: str = "natural"
    workers: int = 1
    texts: int | None = None
    """Texts in the requests of the measured window."""
    latency: Latency
    by_protocol: dict[str, Latency]
    by_version: dict[str, Latency] = {}
    """If more than one version of the model answered."""
    intervals: dict[str, Interval] = {}
    """Of the latency percentiles over all requests, ms: `{"p99": (41.0, 47.5)}`; `loadtests.intervals` has the method.
    """
    dependence: dict[str, float] = {}
    """By percentile: how many times as wide, squared, its interval is than for independent requests."""
    goodput_ms: float | None = None
    """What is in time; None if the objective names no such limit."""
    goodput_share: float | None = None
    """Requests that were answered correctly and in time, of all."""
    goodput_rate: float | None = None
    """The same, a second."""
    wrong: int = 0
    """Requests that got a wrong label."""
    dispatch_lag_p99_ms: float
    max_dispatch_lag_ms: float
    """The most that the recipe allows for the line above."""
    failures: dict[str, int]
    """Requests by outcome, without `ok`."""
    examples: list[str]
    """Details of the first few failures."""
    error_rate: float
    objectives: list[Objective]
    endpoint: dict[str, Any]
    """Address, server version, model, layout, instances, threads: what was measured."""
    machine: dict[str, Any]
    """Processor, cores."""
    generators: list[Generator] = []
    """Every process that sent."""

    @property
    def failed(self) -> int:
        """Requests that were not answered correctly in time."""
        return sum(self.failures.values())

    @property
    def latency_limits(self) -> dict[str, float]:
        """Percentile → limit in ms, for example `{"p99": 50.0, "p99.9": 200.0}`."""
        return {
            PERCENTILES[objective.name]: objective.limit
            for objective in self.objectives
            if objective.name in PERCENTILES
        }

    @property
    def latency_rows(self) -> list[tuple[str, Latency]]:
        """All requests, then each protocol and each version of the model, where there is more than one."""
        rows = [("all", self.latency)]
        if len(self.by_protocol) > 1:
            rows += self.by_protocol.items()
        if len(self.by_version) > 1:
            rows += [(f"version {version}", latency) for version, latency in self.by_version.items()]
        return rows
