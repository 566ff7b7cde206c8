"""Export: checkpoint → bundle.

bundles.py     the stage: opens the checkpoint, has it searched, writes the bundle
source.py      the dense checkpoint and the rows that come with it
graph.py       PyTorch → ONNX

search/        what is tried, made and chosen
evaluation/    what its answers are worth: the gate, significance, calibration
measurement/   what it costs: speed, memory, roofline

pruning/       smaller: heads, neurons and layers that matter least go
distillation/  what is left learns from the dense model
vocabulary/    the tokens of a domain
rewrites/      the same function in fewer operations
quantization/  the same function in fewer bits; fine-tuning for it

`search` knows the other packages, and they know nothing of it: each is usable, and tested, without.
"""

from typing import Any

__all__ = ["export", "export_inputs"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from export import bundles

    return getattr(bundles, name)
