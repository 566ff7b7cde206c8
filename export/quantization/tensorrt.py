"""Static int8 as TensorRT takes it (explicit quantization): symmetric activations, quantizers on the fp32 weights too.

TensorRT's int8 has no zero point, so activations are signed and symmetric; on MiniLM that doubles the divergence from
fp32 (0.0008 against 0.0004 for the CPU's uint8). It folds QuantizeLinear of a constant itself and not every version
accepts weights that are int8 already, so the file has the size of fp32. Embeddings are left alone: a GPU looks rows
up in whatever precision it runs.

Checked here: structure (zero points 0, int8 only, a scale per output channel, pairs on weights) and numerics on ONNX
Runtime's CPU provider. TensorRT itself was not run; measure on the target before serving, since int8 below a batch of
some hundred tokens is often slower than fp16.
"""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from export.quantization.products import drop_unused, replace_nodes, weights_of
from export.quantization.qdq import SYMMETRIC
from export.quantization.ranges import Batch
from export.quantization.static import calibrate


def quantize(model: Path, out: Path, calibration: Sequence[Batch], *, keep: Collection[str] = ()) -> Path:
    """Write the static int8 form of `model` for TensorRT to `out`; products named in `keep` stay fp32.

    Raises `ExportError` if there are no calibration texts.
    """
    import onnx

    proto = calibrate(model, calibration, keep=keep).quantized(activations=SYMMETRIC)
    _quantize_weights_in_graph(proto)
    onnx.save(proto, str(out))
    return out


def _quantize_weights_in_graph(proto: Any) -> None:
    """Replace int8 weights by fp32 ones that a QuantizeLinear turns into just these."""
    from onnx import helper, numpy_helper

    weights = weights_of(proto)
    nodes: list[Any] = []
    for node in proto.graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0].endswith(":int8") and node.input[0] in weights:
            integers, scale = (numpy_helper.to_array(weights[name]) for name in node.input[:2])
            axis = node.attribute[0].i
            shape = [1, 1]
            shape[axis] = -1
            name = f"{node.input[0]}:fp32"
            value = integers.astype(np.float32) * scale.reshape(shape)
            proto.graph.initializer.append(numpy_helper.from_array(value, name))
            result = f"{node.input[0]}:quantized"
            nodes.append(helper.make_node("QuantizeLinear", [name, *node.input[1:]], [result], name=result, axis=axis))
            node.input[0] = result
        nodes.append(node)
    replace_nodes(proto, nodes)
    drop_unused(proto)
