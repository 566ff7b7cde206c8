"""fp16 for GPUs, with the spots that overflow or underflow left in fp32.

fp16 ends at 65504 and has 11 bits of precision. Layer norm squares its input, and a square of 256 is the end of the
range; a transformer's outliers reach that. So normalizations (whole or in parts: Pow, ReduceMean, Sqrt) and Softmax
stay fp32, as do the residual additions and products that feed a normalization, since casting their result to fp16 on
the way would overflow before the fp32 part could begin. The mask's −3.4e38 becomes −65504 wherever it is constant: as
fp16 it would be −inf, and a row with nothing but −inf is NaN after Softmax. Inputs and logits keep their types.

Half the bytes; on a GPU with tensor cores some 2 to 4 times fp32. Checked here on ONNX Runtime's CPU provider, which
computes fp16 by casting: numerics, not speed. bf16 has fp32's range and needs none of this, but TensorRT and older
GPUs lack it.
"""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from export.graph import quietly
from export.quantization.products import load_graph
from export.quantization.ranges import Batch

LARGEST = 65504.0

FP32_OPERATORS = (
    "LayerNormalization",
    "SimplifiedLayerNormalization",
    "RMSNormalization",
    "SkipLayerNormalization",
    "ReduceMean",
    "Pow",
    "Sqrt",
    "Reciprocal",
    "Softmax",
    "LogSoftmax",
)

_NORMALIZATIONS = ("LayerNormalization", "SimplifiedLayerNormalization", "RMSNormalization", "ReduceMean", "Pow")


def quantize(
    model: Path,
    out: Path,
    calibration: Sequence[Batch] = (),  # noqa: ARG001
    *,
    keep: Collection[str] = (),
) -> Path:
    """Write the fp16 form of the fp32 ONNX file `model` to `out`; nodes named in `keep` stay fp32."""
    import onnx
    from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

    proto = load_graph(model)
    _clamp_constants(proto)
    with quietly():
        converted = convert_float_to_float16(
            proto,
            keep_io_types=True,
            op_block_list=[*DEFAULT_OP_BLOCK_LIST, *FP32_OPERATORS],
            node_block_list=sorted(_before_normalizations(proto) | set(keep)),
        )
    onnx.save(converted, str(out))
    return out


def _clamp_constants(proto: Any) -> None:
    from onnx import numpy_helper

    for tensor in proto.graph.initializer:
        if tensor.data_type != 1:
            continue
        value = numpy_helper.to_array(tensor)
        if value.size and np.abs(value).max() > LARGEST:
            tensor.CopyFrom(numpy_helper.from_array(np.clip(value, -LARGEST, LARGEST).astype(np.float32), tensor.name))


def _before_normalizations(proto: Any) -> set[str]:
    """Additions and products between a normalization's input and the nearest product of matrices, both included."""
    writer = {output: node for node in proto.graph.node for output in node.output}
    found: set[str] = set()
    waiting = [node.input[0] for node in proto.graph.node if node.op_type in _NORMALIZATIONS]
    while waiting:
        node = writer.get(waiting.pop())
        if node is None or node.name in found:
            continue
        if node.op_type in ("Add", "Sub", "Mul", "Div"):
            found.add(node.name)
            waiting.extend(node.input)
    return found
