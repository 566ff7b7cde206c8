"""What a recipe may say about changing the model of a running endpoint (`slipway promote`)."""

from itertools import pairwise
from typing import Annotated, Self

from pydantic import Field, model_validator

from slipway.recipe.section import Section

Percent = Annotated[int, Field(ge=1, le=100)]


class Rollout(Section):
    """How a new version takes over, and the bounds that it must keep; it is rolled back otherwise."""

    steps: Annotated[list[Percent], Field(min_length=1)] = Field([1, 10, 50, 100])
    """Shares of the requests, in percent, that the new version gets one after the other; the last is 100."""
    shadow: Annotated[int, Field(ge=0, le=100)] = 0
    """Percent of the requests that it gets a copy of before the first step, without answering anyone."""
    bake_s: Annotated[float, Field(gt=0, le=86_400)] = 60.0
    """How long each step is watched."""
    min_requests: Annotated[int, Field(ge=1, le=1_000_000)] = 100
    """A step is judged on at least so many requests; texts that both versions are asked make up for missing callers."""
    max_error_rate: Annotated[float, Field(ge=0, le=1)] = 0.01
    """Share of its requests that may fail by the server's fault (5xx), beyond what fails with both versions."""
    max_latency_ratio: Annotated[float, Field(ge=1, le=100)] = 1.5
    """Its p99 may be so many times the old version's in the same time."""
    min_agreement: Annotated[float, Field(ge=0, le=1)] = 0.8
    """Share of texts, asked of both, that must get the same label."""

    @model_validator(mode="after")
    def _rises_to_all(self) -> Self:
        if self.steps[-1] != 100 or any(low >= high for low, high in pairwise(self.steps)):
            raise ValueError(f"steps {self.steps} must rise and end with 100")
        return self
