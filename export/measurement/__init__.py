"""Measurement: how fast, how large in memory, how near the machine's limit, and where the time goes.

interleaving.py   speeds of models that take turns
memory.py         what one adds to a process
roofline.py       the fastest products of this machine, and the share of them that is reached
breakdown.py      the time of a run by kind of operation
"""

from export.measurement.interleaving import (
    SHAPES,
    Corpus,
    Run,
    Shape,
    interleaved_latencies,
    speeds,
    spread_by_length,
    torch_model,
)

__all__ = ["SHAPES", "Corpus", "Run", "Shape", "interleaved_latencies", "speeds", "spread_by_length", "torch_model"]
