"""SmoothQuant (Xiao et al. 2022, arXiv:2211.10438): outliers of activations migrate into weights, exactly.

A few channels of a transformer's activations are tens of times larger than the rest, and one range for all of them
leaves the rest with few of the 256 levels. `x · W` equals `(x / s) · (s W)` for any positive `s` per channel, and `s
= peak(x)^α / peak(W)^(1−α)` shares the difficulty between both; weights can carry it, since they have a scale per
output channel. The paper has one α for the model; here each activation gets the one whose expected error of the
product is least, from the moments that calibration saw, and none where that gains little.

The division is folded into the gain and bias of the LayerNormalization that wrote `x` if only these products read it
(pre-norm models). Otherwise it is one multiplication, since in a post-norm model (BERT) the residual path needs the
unscaled `x`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from export.quantization.products import FloatArray, Product, replace_nodes, weights_of
from export.quantization.ranges import Activation

_ALPHAS = tuple(np.linspace(0.4, 1.0, 13))

WORTHWHILE = 0.8
"""An activation is smoothed if its expected error falls below this share of what it was."""


def smooth(proto: Any, found: Sequence[Product], seen: Mapping[str, Activation]) -> dict[str, FloatArray]:
    """Scale the inputs and weights of the products `found` in `proto`; the function it computes stays the same.

    Returns the scales `[inputs]` by name of the activation they divide. What was seen of these holds no longer.
    """
    from onnx import numpy_helper

    weights = weights_of(proto)
    scales: dict[str, FloatArray] = {}
    for name in dict.fromkeys(product.activation for product in found):
        group = [product for product in found if product.activation == name]
        matrices = {product.weight: numpy_helper.to_array(weights[product.weight]) for product in group}
        if any(_readers(proto, weight) > sum(product.weight == weight for product in group) for weight in matrices):
            continue  # shared weights would need one scale for several activations
        scale = best_scale(seen[name], np.concatenate(list(matrices.values()), axis=1))
        if scale is None:
            continue
        scales[name] = scale
        for weight, matrix in matrices.items():
            weights[weight].CopyFrom(numpy_helper.from_array(matrix * scale[:, None], weight))
    for name in list(scales):
        if not _fold(proto, name, scales[name], {product.node for product in found}):
            _multiply(proto, name, scales[name], {product.node for product in found})
    return scales


def _readers(proto: Any, tensor: str) -> int:
    return sum(name == tensor for node in proto.graph.node for name in node.input)


def best_scale(activation: Activation, matrix: FloatArray) -> FloatArray | None:
    """What each channel of `activation` is best divided by, `[inputs]`, before the product with `matrix`.

    `matrix` is `[inputs, outputs]`. None if dividing by nothing loses least.
    """
    low, high = activation.low, activation.high
    peak = np.maximum(np.maximum(-low, high), 1e-5)
    weight_peak = np.maximum(np.abs(matrix).max(1), 1e-5)

    def error(scale: FloatArray) -> float:
        scaled = matrix * scale[:, None]
        step = (max(0.0, float((high / scale).max())) - min(0.0, float((low / scale).min()))) / 255
        weight_steps = np.abs(scaled).max(0) / 127
        rounding = step**2 * float(np.square(scaled).sum())
        return rounding + float((activation.power / scale**2).sum() * np.square(weight_steps).sum())

    candidates = []
    for alpha in _ALPHAS:
        scale = peak**alpha / weight_peak ** (1 - alpha)
        candidates.append((scale / np.exp(np.log(scale).mean())).astype(np.float32))
    best = min(candidates, key=error)
    return best if error(best) < WORTHWHILE * error(np.ones_like(best)) else None


def _fold(proto: Any, name: str, scale: FloatArray, targets: set[str]) -> bool:
    from onnx import numpy_helper

    weights = weights_of(proto)
    writer = next((node for node in proto.graph.node if name in node.output), None)
    readers = [node for node in proto.graph.node if name in node.input]
    if writer is None or writer.op_type != "LayerNormalization" or any(node.name not in targets for node in readers):
        return False
    parameters = [tensor for tensor in writer.input[1:] if tensor]
    if any(tensor not in weights or _readers(proto, tensor) != 1 for tensor in parameters):
        return False
    for tensor in parameters:
        weights[tensor].CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weights[tensor]) / scale, tensor))
    return True


def _multiply(proto: Any, name: str, scale: FloatArray, targets: set[str]) -> None:
    from onnx import helper, numpy_helper

    smoothed, factor = f"{name}:smoothed", f"{name}:smoothing"
    proto.graph.initializer.append(numpy_helper.from_array((1 / scale).astype(np.float32), factor))
    nodes: list[Any] = []
    for node in proto.graph.node:
        if node.name in targets and node.input[0] == name:
            if not any(smoothed in earlier.output for earlier in nodes):
                nodes.append(helper.make_node("Mul", [name, factor], [smoothed], name=smoothed))
            node.input[0] = smoothed
        nodes.append(node)
    replace_nodes(proto, nodes)
