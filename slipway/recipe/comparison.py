"""What a recipe may say about the comparison of two endpoints."""

from typing import Annotated

from pydantic import Field

from slipway.recipe.section import Section


class Compare(Section):
    """`slipway loadtest compare A B`: the same load on both, in short blocks in turn, at `rate`."""

    pairs: Annotated[int, Field(ge=4, le=1000)] = 8
    """Blocks on each side, in the order A B, B A, A B, …"""
    block_s: Annotated[float, Field(ge=0.5, le=3600)] = 6.0
    """Measured window of a block."""
    warmup_s: Annotated[float, Field(ge=0, le=600)] = 1.0
    """Load before each window."""
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    """Of the interval of each ratio."""
    max_p99_ratio: Annotated[float, Field(gt=0)] | None = None
    """If B's p99 over A's is above this with that confidence, the exit code is 2."""
