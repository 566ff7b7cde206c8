"""What comes back for a text."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Answer:
    """The label of a text and its probability."""

    label: str
    score: float
    truncated: bool | None = None
    """Whether only the beginning of the text was read; None if the endpoint doesn't say."""
    version: str = ""
    """Version of the model that answered."""
    scores: dict[str, float] = field(default_factory=dict, hash=False)
    """Labels and their probabilities, best first: as many as `top_k` or `scores` asked for, else none."""
