"""Which nodes are worth quantizing: products of activations with constant weights, and nothing else.

A MatMul of two activations (queries × keys, probabilities × values) has no weights to shrink, needs two more ranges
that depend on the text, and ONNX Runtime gains nothing from it; it stays in floating point. So does the product that
writes the logits: it is a thousandth of the work and every error in it is an error of the answer.
"""

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from slipway.errors import ExportError

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Product:
    """One product by weights: `activation [..., inputs] × weight [inputs, outputs]`, the MatMul called `node`."""

    node: str
    activation: str
    weight: str
    outputs: int


def load_graph(model: Path) -> Any:
    """The ONNX model at `model`, constants as initializers, nodes with names of their own, Gemm as MatMul and Add.

    Raises `ExportError` if the file is not an ONNX model.
    """
    import onnx

    try:
        proto = onnx.load(str(model))
    except OSError:
        raise
    except Exception as error:
        raise ExportError(f"{model} is not an ONNX model: {str(error).splitlines()[0]}") from error
    nodes = []
    for node in proto.graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            tensor = proto.graph.initializer.add()
            tensor.CopyFrom(node.attribute[0].t)
            tensor.name = node.output[0]
        else:
            nodes.append(node)
    taken: set[str] = set()
    for node in nodes:
        if not node.name or node.name in taken:
            node.name = f"{node.op_type}:{node.output[0]}"
        taken.add(node.name)
    replace_nodes(proto, nodes)
    _split_gemms(proto)
    return proto


def _split_gemms(proto: Any) -> None:
    """Write each Gemm by weights of its own as MatMul and Add: no engine fuses a quantized one whose bias is fp32."""
    from onnx import helper, numpy_helper

    weights = weights_of(proto)
    readers = Counter(name for node in proto.graph.node for name in node.input)
    nodes: list[Any] = []
    for node in proto.graph.node:
        attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
        transposed = bool(attributes.pop("transB", 0))
        plain = all(value == (0 if name == "transA" else 1.0) for name, value in attributes.items())
        if node.op_type != "Gemm" or not plain or node.input[1] not in weights or readers[node.input[1]] > 1:
            nodes.append(node)
            continue
        if transposed:
            weight = weights[node.input[1]]
            turned = np.ascontiguousarray(numpy_helper.to_array(weight).T)
            weight.CopyFrom(numpy_helper.from_array(turned, weight.name))
        output, biased = node.output[0], len(node.input) > 2 and bool(node.input[2])
        result = f"{output}:product" if biased else output
        nodes.append(helper.make_node("MatMul", list(node.input[:2]), [result], name=node.name))
        if biased:
            nodes.append(helper.make_node("Add", [result, node.input[2]], [output], name=f"{node.name}:bias"))
    replace_nodes(proto, nodes)


def replace_nodes(proto: Any, nodes: list[Any]) -> None:
    """Make `nodes` (in an order that can be executed) the nodes of `proto`."""
    kept = [type(node).FromString(node.SerializeToString()) for node in nodes]
    del proto.graph.node[:]
    proto.graph.node.extend(kept)


def drop_unused(proto: Any) -> None:
    """Remove initializers that no node reads and shapes of tensors that are gone."""
    used = {name for node in proto.graph.node for name in node.input} | {value.name for value in proto.graph.output}
    kept = [tensor for tensor in proto.graph.initializer if tensor.name in used]
    if len(kept) < len(proto.graph.initializer):
        kept = [type(tensor).FromString(tensor.SerializeToString()) for tensor in kept]
        del proto.graph.initializer[:]
        proto.graph.initializer.extend(kept)
    del proto.graph.value_info[:]


def weights_of(proto: Any) -> dict[str, Any]:
    """The initializers of `proto` by name."""
    return {tensor.name: tensor for tensor in proto.graph.initializer}


def ranks_of(proto: Any) -> dict[str, int]:
    """The number of axes of each tensor of which it can be told."""
    import onnx

    inferred = onnx.shape_inference.infer_shapes(proto)
    ranks = {tensor.name: len(tensor.dims) for tensor in proto.graph.initializer}
    for value in [*inferred.graph.input, *inferred.graph.value_info]:
        if value.type.tensor_type.HasField("shape"):
            ranks[value.name] = len(value.type.tensor_type.shape.dim)
    return ranks


def products(proto: Any, keep: Collection[str] = ()) -> list[Product]:
    """The products that may be quantized, in the order of execution: `weighted` without the head and without `keep`.

    Raises `ExportError` if `keep` names a node that isn't there.
    """
    names = {node.name for node in proto.graph.node}
    if unknown := sorted(set(keep) - names):
        raise ExportError(f"the model has no node {unknown[0]!r} to keep; names are those of the exported graph.")
    found = weighted(proto)
    heads = _heads(proto, {product.node for product in found})
    return [product for product in found if product.node not in heads and product.node not in keep]


def weighted(proto: Any) -> list[Product]:
    """All products by constant float weights `[inputs, outputs]`, in the order of execution."""
    weights = weights_of(proto)
    found = []
    for node in proto.graph.node:
        if node.op_type != "MatMul" or node.input[1] not in weights or node.input[0] in weights:
            continue
        weight = weights[node.input[1]]
        if weight.data_type == 1 and len(weight.dims) == 2:
            found.append(Product(node.name, node.input[0], node.input[1], weight.dims[1]))
    return found


def _heads(proto: Any, candidates: set[str]) -> set[str]:
    """The products that an output is computed from with no other product in between."""
    writer = {output: node for node in proto.graph.node for output in node.output}
    heads: set[str] = set()
    waiting = [value.name for value in proto.graph.output]
    seen: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name in seen or name not in writer:
            continue
        seen.add(name)
        node = writer[name]
        if node.name in candidates:
            heads.add(node.name)
        else:
            waiting.extend(node.input)
    return heads


def bias_of(proto: Any, product: Product) -> str | None:
    """The initializer `[outputs]` that is added to the product's result, if there is one and nothing else reads it."""
    weights = weights_of(proto)
    node = next(node for node in proto.graph.node if node.name == product.node)
    readers = [reader for reader in proto.graph.node if node.output[0] in reader.input]
    if len(readers) != 1 or readers[0].op_type != "Add":
        return None
    name = next((other for other in readers[0].input if other != node.output[0]), None)
    if name not in weights or list(weights[name].dims) != [product.outputs]:
        return None
    return name if sum(name in reader.input for reader in proto.graph.node) == 1 else None
