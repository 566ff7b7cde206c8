"""What a recipe may say about a load test."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from slipway.recipe.arrivals import Arrivals, Poisson, Spikes
from slipway.recipe.capacity import CapacitySearch
from slipway.recipe.chaos import ChaosEvent
from slipway.recipe.comparison import Compare
from slipway.recipe.section import Section
from slipway.recipe.traffic import ClientTls, Credentials, Natural, Traffic

Protocol = Literal["grpc", "http", "generate"]
BatchSize = Annotated[int, Field(ge=1, le=1024)]


class Slo(Section):
    """Service-level objective; a line that is left out is not judged."""

    p50_ms: Annotated[float, Field(gt=0)] | None = None
    """Median latency."""
    p95_ms: Annotated[float, Field(gt=0)] | None = None
    """Latency that 95 % of requests stay under."""
    p99_ms: Annotated[float, Field(gt=0)] | None = None
    """Latency that 99 % of requests stay under."""
    p999_ms: Annotated[float, Field(gt=0)] | None = None
    """Latency that 99.9 % of requests stay under."""
    error_rate: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of requests that may fail; a wrong label is a failure."""
    wrong: Annotated[int, Field(ge=0)] = 0
    """Requests that may get a wrong label."""
    goodput: Annotated[float, Field(ge=0, le=1)] | None = None
    """Share of requests that must get the right answer within `goodput_ms`."""
    goodput_ms: Annotated[float, Field(gt=0)] | None = None
    """What is in time for goodput; `p99_ms` unless told."""

    @model_validator(mode="after")
    def _goodput_has_a_limit(self) -> Self:
        if self.goodput is not None and self.in_time_ms is None:
            raise ValueError("goodput counts answers in time: set goodput_ms, or p99_ms")
        return self

    @property
    def in_time_ms(self) -> float | None:
        """Latency up to which an answer is in time; None if the objective names none."""
        return self.goodput_ms or self.p99_ms


class LoadTest(Section):
    """Load at a running endpoint. Open loop: arrivals come on a schedule, whatever the server does."""

    rate: Annotated[float, Field(gt=0, le=1_000_000)] = 20.0
    """Requests/s, all protocols together."""
    duration_s: Annotated[float, Field(gt=0, le=604_800)] = 30.0
    """Length of the measured window."""
    warmup_s: Annotated[float, Field(ge=0, le=3600)] = 3.0
    """Load before the measured window, not counted."""
    arrivals: Arrivals = Poisson()
    """A process by name, or a section that begins with `process: NAME`, see below."""
    loop: Literal["open", "closed"] = "open"
    """`closed`: `users` wait for their answers before they send again; such figures flatter a server that stalls."""
    users: Annotated[int, Field(ge=1, le=10_000)] = 8
    """Of a closed loop; `rate` and `arrivals` are not used there."""
    think_s: Annotated[float, Field(ge=0, le=3600)] = 0.0
    """Mean pause of a user of a closed loop between an answer and the next request; exponential."""
    protocols: Annotated[list[Protocol], Field(min_length=1)] = Field(["grpc", "http"])
    """Each arrival takes one of them, at random; `generate` is flat JSON over HTTP."""
    batch_size: BatchSize | dict[BatchSize, Annotated[float, Field(gt=0)]] = 1
    """Texts in a request, or how often each size comes: `{1: 9, 8: 1}`."""
    traffic: Traffic = Natural()
    """A mix of texts by name, or a section that begins with `mix: NAME`, see below."""
    workers: Annotated[int, Field(ge=1, le=256)] = 1
    """Processes that share the load; one is good for some hundred requests/s."""
    connections: Annotated[int, Field(ge=1, le=1024)] | None = None
    """Each worker spreads a protocol's requests over so many, as few as can be unless told: where connections are
    balanced and not requests (a Kubernetes Service), few of them load few of the replicas."""
    seed: int = 0
    """Of the schedule, the order of texts and the choice of protocols."""
    timeout_s: Annotated[float, Field(gt=0, le=600)] = 10.0
    """A request without an answer after this long is a failure."""
    max_dispatch_lag_ms: Annotated[float, Field(gt=0)] = 20.0
    """If the generator's own delay (p99) is larger, the run is invalid."""
    credentials: Credentials | None = None
    """For a protected endpoint."""
    tls: ClientTls = ClientTls()
    """For an address that begins with https://."""
    slo: Slo = Slo()
    """What must hold, or the exit code is 2."""
    chaos: list[ChaosEvent] = Field([])
    """Faults that are made on purpose while the load runs."""
    capacity: CapacitySearch = CapacitySearch()
    """How `--capacity` searches."""
    compare: Compare = Compare()
    """How `compare` compares."""

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        if len(set(self.protocols)) != len(self.protocols):
            raise ValueError("protocols names one of them twice")
        return self

    @model_validator(mode="after")
    def _batches_fit(self) -> Self:
        if isinstance(self.batch_size, dict) and not self.batch_size:
            raise ValueError("batch_size names no size")
        if "generate" in self.protocols and set(self.batch_sizes) != {1}:
            raise ValueError("generate takes one text a request; set batch_size to 1 or leave generate out")
        return self

    @model_validator(mode="after")
    def _someone_for_each_worker(self) -> Self:
        if self.loop == "closed" and self.users < self.workers:
            raise ValueError("a closed loop has at least one user for each worker; raise users or lower workers")
        return self

    @model_validator(mode="after")
    def _the_process_fits(self) -> Self:
        if self.misses_spikes:
            raise ValueError(self.misses_spikes)
        return self

    @property
    def misses_spikes(self) -> str:
        """What is wrong with `spikes` whose first one begins after the measured window; empty if nothing is."""
        if self.loop == "closed" or not isinstance(self.arrivals, Spikes) or self.duration_s > self.arrivals.first_s:
            return ""
        return (
            f"the first spike begins after {self.arrivals.first_s:g} s, half of every_s, and {self.duration_s:g} s are "
            "measured: measure longer or lower loadtest.arrivals.every_s"
        )

    @property
    def batch_sizes(self) -> dict[int, float]:
        """Texts in a request → share of requests."""
        weights = self.batch_size if isinstance(self.batch_size, dict) else {self.batch_size: 1.0}
        total = sum(weights.values())
        return {size: weight / total for size, weight in sorted(weights.items())}
