"""What a recipe may say about a load test."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from slipway.recipe.capacity import CapacitySearch
from slipway.recipe.chaos import ChaosEvent
from slipway.recipe.comparison import Compare
from slipway.recipe.section import Section


class Slo(Section):
    """Service-level objective; a line that is left out is not judged."""

    p50_ms: Annotated[float, Field(gt=0)] | None = None
    """Median latency."""
    p95_ms: Annotated[float, Field(gt=0)] | None = None
    """Latency that 95 % of requests stay under."""
    p99_ms: Annotated[float, Field(gt=0)] | None = None
    """Latency that 99 % of requests stay under."""
    error_rate: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of requests that may fail; a wrong label is a failure."""


class LoadTest(Section):
    """Open-loop load: arrivals come on a schedule, whatever the server does."""

    rate: Annotated[float, Field(gt=0, le=1_000_000)] = 20.0
    """Requests/s, all protocols together."""
    duration_s: Annotated[float, Field(gt=0, le=86_400)] = 30.0
    """Length of the measured window."""
    warmup_s: Annotated[float, Field(ge=0, le=3600)] = 3.0
    """Load before the measured window, not counted."""
    arrivals: Literal["poisson", "constant"] = "poisson"
    """`poisson`: independent callers; `constant`: evenly spaced."""
    protocols: Annotated[list[Literal["grpc", "http"]], Field(min_length=1)] = Field(["grpc", "http"])
    """Each arrival takes one of them, at random."""
    seed: int = 0
    """Of the schedule, the order of texts and the choice of protocols."""
    timeout_s: Annotated[float, Field(gt=0, le=600)] = 10.0
    """A request without an answer after this long is a failure."""
    max_dispatch_lag_ms: Annotated[float, Field(gt=0)] = 20.0
    """If the generator's own delay (p99) is larger, the run is invalid."""
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
