"""What a recipe may say about faults that are made on purpose while the load runs."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from slipway.recipe.section import Section

FaultName = Literal[
    "kill-stub", "kill-triton", "kill-envoy", "kill-supervisor",
    "pause-stub", "pause-triton", "pause-envoy",
    "fill-disk", "hog-cpu",
]  # fmt: skip


class ChaosEvent(Section):
    """One fault. Only endpoints of Slipway on this machine can be given faults, and only their processes get them."""

    at_s: Annotated[float, Field(ge=0)]
    """Seconds after the start of the measured window."""
    fault: FaultName
    """`kill-…`: SIGKILL; `pause-…`: SIGSTOP, SIGCONT after `for_s`; `fill-disk`: no space left in `directory`;
    `hog-cpu`: `processes` busy loops."""
    for_s: Annotated[float, Field(gt=0, le=3600)] = 1.0
    """How long it lasts; a kill is over at once."""
    processes: Annotated[int, Field(ge=1, le=1024)] = 1
    """Of `hog-cpu`."""
    directory: str | None = None
    """Of `fill-disk`: on a small file system of its own."""
    recover_within_s: Annotated[float, Field(gt=0)] | None = None
    """If the service is not back to normal so many seconds after the fault began, the exit code is 2."""

    @model_validator(mode="after")
    def _has_a_place(self) -> Self:
        if (self.fault == "fill-disk") != (self.directory is not None):
            raise ValueError("chaos: directory goes with the fault fill-disk, and only with it")
        return self
