"""What a recipe may say about the search for an endpoint's capacity."""

from typing import Annotated

from pydantic import Field

from slipway.recipe.section import Section


class CapacitySearch(Section):
    """`slipway loadtest BUNDLE --capacity`: the highest arrival rate that meets the objective, from `rate` upwards."""

    probe_s: Annotated[float, Field(ge=1, le=3600)] = 10.0
    """Measured window of one probe. A rate that is 1 % too high takes 100 s to build 1 s of queue."""
    warmup_s: Annotated[float, Field(ge=0, le=600)] = 2.0
    """Load at the probe's rate before its window."""
    min_requests: Annotated[int, Field(ge=1)] = 200
    """At low rates a probe is longer, so that it has as many."""
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.9
    """Probability that the capacity lies within the interval that is reported."""
    precision: Annotated[float, Field(gt=0.005, le=1)] = 0.15
    """The search ends when the interval is no wider than this share of the rate."""
    max_rate: Annotated[float, Field(gt=0, le=1_000_000)] = 20_000.0
    """No probe offers more."""
    time_budget_s: Annotated[float, Field(gt=0, le=86_400)] = 300.0
    """No probe begins that would end after this; the interval is then as wide as it is."""
    at_least: Annotated[float, Field(gt=0)] | None = None
    """Requests/s that the lower end of the interval must reach, or the exit code is 2."""
