"""Export: checkpoint → bundle.

bundles.py        the stage: opens the checkpoint, has it searched, writes the bundle
source.py         the dense checkpoint and the rows that come with it
plans.py          what a search tries
search.py         the search
students.py       smaller models, each cut out of the one before and taught by the dense one
candidates.py     one variant: quantized, and asked the whole of dev
speed.py          all variants and PyTorch beside each other
rows.py           a variant's figures
gate.py           what may be promoted, which of those is, and why the others are not

importance.py     how much each head, neuron and layer matters
pruning.py        which of them go
teacher.py        what the dense model has to teach
distillation.py   learning it; learning.py, pacing.py, resumption.py and token_batches.py are the loop
qat.py            learning to live with rounding
vocabulary/       the tokens of a domain

graph.py          PyTorch → ONNX
rewrites/         the same function in fewer operations
quantization/     the same function in fewer bits

measurement.py    speed; memory.py, roofline.py and breakdown.py say what it costs and where it goes
significance.py   is a loss real? classes.py says whose it is
calibration.py    temperature
"""

from typing import Any

__all__ = ["export", "export_inputs"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from export import bundles

    return getattr(bundles, name)
