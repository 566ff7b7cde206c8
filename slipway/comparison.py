"""What a comparison artifact holds, typed: two endpoints under the same load in turn, and by how much they differ.

comparison/
  manifest.json
  comparison.json       `Comparison` below
  blocks/NNN-a/, -b/    verdict.json, timeline.json, samples.parquet of each block
  report.html
"""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from slipway.verdict import Latency

COMPARISON = "comparison.json"
BLOCKS = "blocks"


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Block(_Model):
    """One stretch of load on one side."""

    number: int
    pair: int
    side: Literal["a", "b"]
    valid: bool
    achieved_rate: float
    latency: Latency
    failures: dict[str, int]


class Side(_Model):
    """One of the two."""

    name: str
    latency: Latency
    """Over all valid blocks."""
    achieved_rate: float
    error_rate: float
    endpoint: dict[str, Any]


class Ratio(_Model):
    """B over A, with its interval by a bootstrap over pairs of blocks."""

    figure: str
    """`p50`, `p95`, `p99`, `mean`, `throughput`."""
    ratio: float
    low: float
    high: float

    @property
    def differs(self) -> bool:
        """Whether the interval leaves out 1."""
        return not self.low <= 1 <= self.high


class Comparison(_Model):
    """What `comparison.json` holds."""

    outcome: Literal["met", "missed", "invalid"]
    """`missed`: B's p99 is beyond what the recipe allows; `invalid`: too few pairs of blocks can be believed."""
    reason: str
    a: Side
    b: Side
    ratios: list[Ratio]
    confidence: float
    pairs: int
    """In which both blocks are valid."""
    max_p99_ratio: float | None
    blocks: list[Block]
    rate: float
    arrivals: str
    protocols: list[str]
    seed: int
    texts: int
    """Different ones; both sides get the same in the same order."""
    machine: dict[str, Any]
