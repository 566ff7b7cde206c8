"""Quantization: an fp32 ONNX file → the same function in fewer bits. One technique, one file, one line in `QUANTIZERS`.

products.py     which nodes are worth it
ranges.py       what activations look like on training texts
smooth.py       outliers of activations migrate into weights
qdq.py          int8 products in standard operators
bias.py         rounding shifts no mean
embeddings.py   tables in 8 or 4 bits
dynamic.py      int8, ranges at run time        static.py   int8, ranges ahead of time
nncf.py         int8 by NNCF                    minmax.py   int8 by ONNX Runtime's own tool
mixed.py        static, the harmful products in fp32
tensorrt.py     int8 for TensorRT               half.py     fp16 for GPUs
weight_only.py  4 or 8 bits for weights alone
qat.py          fine-tuning with rounding in it
calibration_texts.py  which texts set ranges
"""

import shutil
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, Protocol

from export.quantization import dynamic, half, minmax, mixed, nncf, static, tensorrt, weight_only
from export.quantization.embeddings import quantize_tables
from export.quantization.ranges import Batch
from slipway.bundle import EngineName

__all__ = ["QUANTIZERS", "Quantize", "Quantizer"]


class Quantize(Protocol):
    """Writes the quantized form of the fp32 file `model` to `out` and returns `out`.

    `calibration`: batches of training texts; `keep`: names of nodes that stay in higher precision.
    """

    def __call__(self, model: Path, out: Path, calibration: Sequence[Batch], *, keep: Collection[str] = ()) -> Path:
        """See the class."""
        ...


@dataclass(frozen=True)
class Quantizer:
    """A technique and what may be expected of its files."""

    name: str
    quantize: Quantize
    precision: Literal["fp32", "int8", "fp16"]
    engines: tuple[EngineName, ...] = ("onnxruntime", "openvino")
    """Engines that it makes sense on; others may run the file too, without a gain."""
    target: Literal["cpu", "gpu"] = "cpu"
    batch_invariant: bool = True
    """A row's logits don't depend on the rows and the padding beside it (beyond the order of fp32 sums)."""
    needs_calibration: bool = False


def _copy(
    model: Path,
    out: Path,
    calibration: Sequence[Batch],  # noqa: ARG001
    *,
    keep: Collection[str] = (),  # noqa: ARG001
) -> Path:
    shutil.copyfile(model, out)
    return out


def _with_embeddings_4(
    quantize: Quantize, model: Path, out: Path, calibration: Sequence[Batch], *, keep: Collection[str] = ()
) -> Path:
    """`quantize` on the model whose embeddings have 4 bits already, so that its ranges are those of what is served."""
    smaller = quantize_tables(model, out.with_suffix(".embeddings.onnx"), 4)
    try:
        return quantize(smaller, out, calibration, keep=keep)
    finally:
        smaller.unlink()


_ALL = (
    Quantizer("fp32", _copy, "fp32"),
    Quantizer("int8-dynamic", dynamic.quantize, "int8", ("onnxruntime",), batch_invariant=False),
    Quantizer(
        "int8-dynamic-e4",
        partial(_with_embeddings_4, dynamic.quantize),
        "int8",
        ("onnxruntime",),
        batch_invariant=False,
    ),
    Quantizer("int8-static", static.quantize, "int8", needs_calibration=True),
    Quantizer("int8-static-e4", partial(_with_embeddings_4, static.quantize), "int8", needs_calibration=True),
    Quantizer("int8-minmax", minmax.quantize, "int8", ("onnxruntime",), needs_calibration=True),
    Quantizer("int8-nncf", nncf.quantize, "int8", ("openvino",), needs_calibration=True),
    Quantizer("int8-mixed", mixed.quantize, "int8", needs_calibration=True),
    Quantizer("w8", weight_only.quantize_8, "int8", ("onnxruntime",)),
    Quantizer("w4", weight_only.quantize_4, "int8", ("onnxruntime",)),
    Quantizer("fp16", half.quantize, "fp16", ("onnxruntime",), "gpu"),
    Quantizer("int8-tensorrt", tensorrt.quantize, "int8", ("onnxruntime",), "gpu", needs_calibration=True),
)

QUANTIZERS: dict[str, Quantizer] = {quantizer.name: quantizer for quantizer in _ALL}
