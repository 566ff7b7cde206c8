"""What the model tells about a batch it has answered, for whoever counts, traces or captures it.

The model calls one `Observer` and knows none of them; an observer that fails must not fail an answer.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

Refusal = Literal["bad_text", "too_long", "bad_parameter", "deadline", "cancelled", "internal"]
"""Why a request got no inference or no answer."""


@dataclass(frozen=True)
class Request:
    """What is known of a request before it is answered; times are seconds of `time.time()`, 0 when unknown."""

    id: str = ""
    arrived_s: float = 0.0
    """When the front door began to receive it."""
    deadline_s: float = 0.0
    traceparent: str = ""


@dataclass(frozen=True)
class Answered:
    """One request that was answered, row by row."""

    request: Request
    texts: Sequence[str]
    labels: Sequence[str]
    scores: Sequence[float]
    truncated: Sequence[bool]
    windows: Sequence[int]
    """Model runs that a row took: 1 unless a long text was cut into windows."""


@dataclass(frozen=True)
class Executed:
    """One call of `execute`: what Triton handed over together, and the work it was."""

    started_s: float
    tokenized_s: float
    computed_s: float
    ended_s: float
    tokens: int
    """Real tokens that were run."""
    padded_tokens: int
    """Tokens that were run only to fill up rows."""
    runs: int
    """Calls of the engine."""
    answered: Sequence[Answered]
    refused: Sequence[tuple[Request, Refusal]]


class Observer(Protocol):
    """Is told of every `execute`, after its answers were made."""

    def executed(self, batch: Executed) -> None:
        """Called once for each `execute`, in the model's process."""
        ...

    def close(self) -> None:
        """The model is unloaded."""
        ...


class Silent:
    """Tells nobody."""

    def executed(self, batch: Executed) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""
