"""What a verdict holds, typed: was the objective met at the offered rate, and may the run be believed?

    verdict/
      manifest.json
      verdict.json      `Verdict` below
      samples.parquet   one row per request, see `SAMPLE_COLUMNS`

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
}


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
    """`p50_ms`, `p95_ms`, `p99_ms`, `error_rate`."""
    limit: float
    measured: float
    met: bool


class Verdict(BaseModel):
    """What `verdict.json` holds."""

    model_config = ConfigDict(extra="forbid")
    outcome: Literal["met", "missed", "invalid"]
    """`invalid`: the generator could not keep its schedule, so the figures say nothing about the server."""
    reason: str
    """One sentence for a person."""
    offered_rate: float
    """Requests/s that the recipe asked for."""
    scheduled: int
    """Arrivals in the measured window."""
    achieved_rate: float
    """Correct answers per second of the measured window."""
    duration_s: float
    warmup_s: float
    arrivals: str
    seed: int
    protocols: list[str]
    latency: Latency
    by_protocol: dict[str, Latency]
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
