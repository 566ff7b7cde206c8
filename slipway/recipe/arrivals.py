"""What a recipe may say about when requests come: one section for each arrival process of `loadtests.arrivals`.

Rates inside a process are multiples of `loadtest.rate`, so that the same shape can be tried at another rate.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from slipway.recipe.section import Section

Multiple = Annotated[float, Field(ge=0, le=1000)]


class Poisson(Section):
    """Independent callers at a steady rate."""

    process: Literal["poisson"] = "poisson"


class Constant(Section):
    """Evenly spaced: kinder than reality, and the same load each time."""

    process: Literal["constant"] = "constant"


class Ramp(Section):
    """A rate that rises or falls in a straight line over the measured window."""

    process: Literal["ramp"] = "ramp"
    start: Multiple = 0.1
    """Rate at the beginning, as a multiple of `rate`; also while warming up."""
    end: Multiple = 1.0
    """Rate at the end."""

    @model_validator(mode="after")
    def _something_arrives(self) -> Self:
        if self.start == self.end == 0:
            raise ValueError("a ramp from 0 to 0 brings nothing")
        return self


class Steps(Section):
    """One level after the other, for equal parts of the measured window."""

    process: Literal["steps"] = "steps"
    levels: Annotated[list[Multiple], Field(min_length=1, max_length=1000)] = Field([0.25, 0.5, 0.75, 1.0])
    """Multiples of `rate`."""

    @model_validator(mode="after")
    def _something_arrives(self) -> Self:
        if not any(self.levels):
            raise ValueError("levels of 0 bring nothing")
        return self


class Spikes(Section):
    """`rate`, and now and then many times as much for a moment."""

    process: Literal["spikes"] = "spikes"
    height: Annotated[float, Field(ge=1, le=1000)] = 5.0
    """Rate during a spike, as a multiple of `rate`."""
    every_s: Annotated[float, Field(gt=0, le=86_400)] = 30.0
    """From the beginning of one to the beginning of the next; the first begins after half of it."""
    length_s: Annotated[float, Field(gt=0, le=86_400)] = 2.0
    """How long one lasts."""

    @model_validator(mode="after")
    def _spikes_end(self) -> Self:
        if self.length_s > self.every_s / 2:
            raise ValueError("length_s must be at most half of every_s, or the spikes are the rule")
        return self

    @property
    def first_s(self) -> float:
        """When the first spike begins, in s after the start of the measured window."""
        return self.every_s / 2


class Diurnal(Section):
    """Day and night: a sine around `rate` that begins at its lowest."""

    process: Literal["diurnal"] = "diurnal"
    depth: Annotated[float, Field(gt=0, le=1)] = 0.8
    """Lowest is `rate` × (1 − depth), highest `rate` × (1 + depth)."""
    period_s: Annotated[float, Field(gt=0, le=604_800)] | None = None
    """Length of a day; the whole measured window unless told."""


class Replay(Section):
    """The arrivals of a recording; `rate` is not used. It begins with the warm-up."""

    process: Literal["replay"] = "replay"
    source: Annotated[str, Field(pattern="^file:.+")]
    """`file:…` with a column of timestamps: Parquet, CSV, JSON lines, or the access log of an endpoint."""
    column: str = "time"
    """Timestamps (ISO 8601), or numbers in seconds from any origin; need not be in order."""
    speed: Annotated[float, Field(gt=0, le=1_000_000)] = 1.0
    """2 sends it in half the time; 1000 reads numbers that are milliseconds."""


Process = Poisson | Constant | Ramp | Steps | Spikes | Diurnal | Replay


def by_name(field: str) -> BeforeValidator:
    """Take `name` for `{field: name}`: a choice without parameters needs no section."""

    def expand(value: Any) -> Any:
        return {field: value} if isinstance(value, str) else value

    return BeforeValidator(expand)


Arrivals = Annotated[Process, Field(discriminator="process"), by_name("process")]

__all__ = [
    "Arrivals",
    "Constant",
    "Diurnal",
    "Multiple",
    "Poisson",
    "Process",
    "Ramp",
    "Replay",
    "Spikes",
    "Steps",
    "by_name",
]
