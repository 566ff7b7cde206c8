"""What happened over the time of a run, typed: the part of a verdict that is as small for a night as for a minute.

    verdict/timeline.json     `Timeline` below

A run of hours has millions of samples; its story has a hundred windows. Everything that a person sees of a run (the
page, the drift of a soak, what a fault did) is drawn from this, and this is made in one pass over the samples in
bounded memory (`loadtests.timeline`). Price: percentiles of windows come from a histogram whose bins are 1 % wide;
those of the verdict itself are exact.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict

TIMELINE = "timeline.json"


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Window(_Model):
    """Requests that were scheduled in `[start_s, end_s)`; times in s from the start of the measured window."""

    start_s: float
    end_s: float
    scheduled: int
    served: int
    """Correct answers that came in this window, whenever they were asked for."""
    failures: dict[str, int]
    """By outcome, of the requests scheduled here."""
    p50_ms: float | None
    """None where nothing was scheduled, as in all below."""
    p95_ms: float | None
    p99_ms: float | None
    max_ms: float | None
    lag_p99_ms: float | None


class Dot(_Model):
    """One request, for a picture."""

    at_s: float
    latency_ms: float
    outcome: str


class Percentile(_Model):
    """`quantile` of the measured requests took at most so long."""

    quantile: float
    latency_ms: float
    """From the scheduled arrival."""
    service_ms: float
    """From when the request was sent: what a tool that counts from there would report."""


class Bin(_Model):
    """How many of the measured requests took from `low_ms` to `high_ms`."""

    low_ms: float
    high_ms: float
    count: int


class Work(_Model):
    """What Triton's statistics say of the requests between two moments; means in ms for each request."""

    requests: int
    executions: int
    queue_ms: float
    compute_ms: float

    @property
    def batch(self) -> float:
        """Requests that were run together, on average."""
        return self.requests / self.executions if self.executions else 0.0


class Usage(_Model):
    """What the server's processes on this machine used between two moments."""

    cpu_cores: float
    """Processor seconds for each second."""
    cores: int
    """That there are, for everything on the machine, the load generator included."""
    rss_mb: float
    """Resident memory at the end, all its processes together (shared pages count in each), in MB of 10⁶ bytes."""
    generator_cores: float = 0.0
    """Processor seconds for each second of the load generator itself."""
    machine_cores: float = 0.0
    """Processor seconds for each second of everything on the machine, these two and strangers."""

    @property
    def other_cores(self) -> float:
        """What belongs to neither; it should be next to nothing in a measurement."""
        return max(self.machine_cores - self.cpu_cores - self.generator_cores, 0.0)


class Reading(_Model):
    """The server at one moment and since the one before."""

    at_s: float
    usage: Usage | None
    work: Work | None


class FaultRecord(_Model):
    """A fault that was made on purpose, and what became of the requests."""

    fault: str
    detail: str
    """What exactly was done."""
    began_s: float
    ended_s: float
    """When the fault itself was over (at once, for a kill)."""
    recovered_s: float | None
    """When the service was back to normal; None if it was not before the run ended."""
    recover_within_s: float | None
    """What the recipe allows from `began_s` on."""
    requests: int
    """Under way at some time between its beginning and the recovery."""
    lost: int
    """Of these, ended in an error or a timeout."""
    wrong: int
    """Of these, answered with another label."""

    @property
    def time_to_recovery_s(self) -> float | None:
        """From the beginning of the fault."""
        return None if self.recovered_s is None else self.recovered_s - self.began_s

    @property
    def met(self) -> bool:
        """Whether it was over in the time that the recipe allows."""
        took = self.time_to_recovery_s
        return self.recover_within_s is None or (took is not None and took <= self.recover_within_s)


class Drift(_Model):
    """How a figure changed over the run: Theil and Sen's slope, Mann and Kendall's test."""

    figure: Literal["p50 latency", "p99 latency", "server memory", "failures"]
    unit: str
    per_hour: float
    share: float
    """Change over the run over the figure's median."""
    p_value: float
    drifts: bool
    """Whether it is both beyond chance (p < 0.01) and large enough to matter (10 % over the run)."""


class Burst(_Model):
    """Neighbouring windows with far more failures than the others."""

    start_s: float
    end_s: float
    failures: int


class Timeline(_Model):
    """What `timeline.json` holds."""

    duration_s: float
    warmup_s: float
    windows: list[Window]
    percentiles: list[Percentile]
    histogram: list[Bin]
    """Bins of equal ratio, from the fastest to the slowest request."""
    dots: list[Dot]
    """An even sample of the requests, the slowest, and failures."""
    readings: list[Reading]
    usage: Usage | None
    """Over the measured window; None if the server isn't on this machine."""
    work: Work | None
    """Over the measured window; None without Triton's statistics."""
    faults: list[FaultRecord]
    lost_outside_faults: int
    wrong: int
    drifts: list[Drift]
    bursts: list[Burst]
    backlog_s_per_s: float
    """Seconds by which the waiting grew in each second of load: 0 for a server that keeps up."""
