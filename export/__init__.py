"""Export: checkpoint → bundle.

graph.py          PyTorch → ONNX, fusion
quantization.py   int8 for CPUs
measurement.py    what a variant gives: metric, agreement, parity, latency
gate.py           what may be promoted, and why the others may not
bundles.py        the stage: puts the above together and writes the artifact
"""

from export.bundles import export, export_inputs

__all__ = ["export", "export_inputs"]
