"""What a capacity artifact holds, typed: the highest arrival rate that meets the objective, as an interval.

    capacity/
      manifest.json
      capacity.json         `Capacity` below
      probes/NNN/           verdict.json, timeline.json, samples.parquet of each probe
      report.html

It is measured against one endpoint as it stands, so for one replica it is the capacity per replica, and what a plan of
replicas starts from: rate, service time, requests in flight, memory, and the conditions that they hold for.
"""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from slipway.timeline import Usage, Work
from slipway.verdict import Latency

CAPACITY = "capacity.json"
PROBES = "probes"

Answer = Literal["met", "missed", "invalid"]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Probe(_Model):
    """A short run at one rate."""

    number: int
    rate: float
    """Offered, requests/s."""
    answer: Answer
    """`missed` also if the backlog grew throughout, whatever the percentiles say."""
    reason: str
    seed: int
    duration_s: float
    requests: int
    achieved_rate: float
    """Correct answers/s."""
    latency: Latency
    error_rate: float
    dispatch_lag_p99_ms: float
    backlog_s_per_s: float
    in_flight: float
    """Mean number of requests under way: rate × mean latency (Little 1961)."""
    usage: Usage | None
    work: Work | None


class Bottleneck(_Model):
    """What keeps the endpoint (or the test) from more."""

    what: Literal["compute", "queue", "client", "unknown"]
    """`compute`: the machine's cores, or the model's own time; `queue`: requests wait although there are idle cores,
    so more instances or another batching would help; `client`: the load generator gave up first."""
    reason: str


class Interval(_Model):
    """Where the capacity lies, in requests/s."""

    low: float
    estimate: float
    """The median: a run at this rate meets the objective about as often as not."""
    high: float | None
    """None if no rate was found that misses it."""
    confidence: float


class Capacity(_Model):
    """What `capacity.json` holds."""

    outcome: Literal["found", "at-least", "none"]
    """`at-least`: every rate that could be offered met the objective; `none`: not even the lowest did."""
    reason: str
    """One sentence for a person."""
    interval: Interval | None
    """None if the outcome is `none`."""
    converged: bool
    """Whether the interval is as narrow as was asked for."""
    bottleneck: Bottleneck
    at_least: float | None
    """What the recipe asks of the lower end."""
    slo: dict[str, float]
    """The objective: limits by name."""
    service_ms: float
    """Mean time that a request takes of the server without waiting."""
    service_from: Literal["triton", "unloaded"]
    """`triton`: compute time by its statistics at the highest rate that met; `unloaded`: latency of one at a time."""
    unloaded_ms: float
    """Median latency of one request at a time."""
    mean_latency_ms: float
    """At the highest rate that met."""
    in_flight: float
    """Mean number of requests under way at the highest rate that met."""
    cpu_ms_per_request: float | None
    """Processor time of the server's processes; None if it isn't on this machine."""
    memory_mb: float | None
    """The most that the server's processes had resident."""
    probes: list[Probe]
    seconds: float
    """That the search took."""
    arrivals: str
    protocols: list[str]
    endpoint: dict[str, Any]
    machine: dict[str, Any]

    @property
    def met(self) -> bool:
        """Whether it is what the recipe asks for."""
        low = self.interval.low if self.interval else 0.0
        return self.at_least is None or low >= self.at_least
