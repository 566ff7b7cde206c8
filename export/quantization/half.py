"""fp16 for GPUs, with the spots that overflow or underflow left in fp32.

fp16 ends at 65504 and has 11 bits of precision. Layer norm squares its input, and a square of 256 is the end of the
range; a transformer's outliers reach that. So normalizations (whole or in parts: Pow, ReduceMean, Sqrt) and Softmax
stay fp32, and so do the residual additions that feed a normalization, since rounding their result to fp16 on the way
would overflow before the fp32 part could begin. A product of matrices stays fp32 only if calibration texts bring its
results near the end of the range, since these are what fp16 is for. The mask's −3.4e38 becomes −65504: as fp16 it
would be −inf, and a row with nothing but −inf is NaN after Softmax. Inputs and logits keep their types.

Half the bytes; on a GPU with tensor cores some 2 to 4 times fp32. Only numerics were checked, with every fp16 tensor
of the graph read out on ONNX Runtime's CPU provider; its speed there says nothing (it computes in fp32 and casts).
bf16 has fp32's range and needs none of this, but TensorRT's support and older GPUs lag behind.
"""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from export.graph import quietly
from export.quantization.products import drop_unused, load_graph, replace_nodes, weighted
from export.quantization.ranges import Batch, observe

LARGEST = 65504.0

MARGIN = 4

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
    calibration: Sequence[Batch] = (),
    *,
    keep: Collection[str] = (),
) -> Path:
    """Write the fp16 form of the fp32 ONNX file `model` to `out`; nodes named in `keep` stay fp32.

    With `calibration`, so do the products by weights whose results come near the end of fp16 on its texts.
    """
    import onnx
    from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

    proto = load_graph(model)
    kept = _before_normalizations(proto) | set(keep)
    if calibration:
        kept |= _overflowing(proto, calibration)
    blocked = [*DEFAULT_OP_BLOCK_LIST, *FP32_OPERATORS]
    _clamp_constants(proto, {node.name for node in proto.graph.node if node.op_type in blocked} | kept)
    with quietly():
        converted = convert_float_to_float16(
            proto, keep_io_types=True, op_block_list=blocked, node_block_list=sorted(kept)
        )
    _join_fp32(converted)
    onnx.save(converted, str(out))
    return out


def _join_fp32(proto: Any) -> None:
    """Undo the detours through fp16 between two nodes in fp32: the converter casts each of them by itself."""
    from onnx import TensorProto

    casts = {
        (node.output[0], node.attribute[0].i): node.input[0] for node in proto.graph.node if node.op_type == "Cast"
    }
    # What was cast to fp16 by the converter was fp32; a Cast of the model's own (of a mask, say) was not.
    exact = {
        half: source
        for (half, to), source in casts.items()
        if to == TensorProto.FLOAT16 and source.endswith("_cast_to_fp16")
    }
    detours = {
        single: exact[source] for (single, to), source in casts.items() if to == TensorProto.FLOAT and source in exact
    }
    nodes = [node for node in proto.graph.node if not set(node.output) <= set(detours)]
    for node in nodes:
        for place, name in enumerate(node.input):
            if name in detours:
                node.input[place] = detours[name]
    used = {name for node in nodes for name in node.input} | {value.name for value in proto.graph.output}
    replace_nodes(proto, [node for node in nodes if node.op_type != "Cast" or node.output[0] in used])
    drop_unused(proto)


def _overflowing(proto: Any, calibration: Sequence[Batch]) -> set[str]:
    """Products by weights whose results came within a factor of `MARGIN` of the end of fp16."""
    results = {node.name: node.output[0] for node in proto.graph.node}
    names = {product.node: results[product.node] for product in weighted(proto)}
    seen = observe(proto, names.values(), calibration)
    return {node for node, result in names.items() if max(map(abs, seen[result].range())) * MARGIN > LARGEST}


def _clamp_constants(proto: Any, kept: set[str]) -> None:
    from onnx import numpy_helper

    read = {name for node in proto.graph.node if node.name not in kept for name in node.input}
    for tensor in proto.graph.initializer:
        if tensor.data_type != 1 or tensor.name not in read:
            continue
        value = numpy_helper.to_array(tensor)
        if value.size and np.abs(value).max() > LARGEST:
            clamped = np.clip(value, -LARGEST, LARGEST).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(clamped, tensor.name))


def _before_normalizations(proto: Any) -> set[str]:
    """The arithmetic between a normalization's input and the products of matrices that it comes from."""
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
