"""Which nodes are worth quantizing: products of activations with constant weights, and nothing else.

A MatMul of two activations (queries × keys, probabilities × values) has no weights to shrink, needs two more ranges
that depend on the text, and ONNX Runtime gains nothing from it; it stays in floating point. So does the product that
writes the logits: it is a thousandth of the work and every error in it is an error of the answer.
"""

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
    """One product by weights: `activation [..., inputs] × weight [inputs, outputs]` (the transpose if `transposed`)."""

    node: str
    activation: str
    weight: str
    outputs: int
    transposed: bool

    @property
    def output_axis(self) -> int:
        """The axis of the weights that counts output channels."""
        return 0 if self.transposed else 1


def load_graph(model: Path) -> Any:
    """The ONNX model at `model`, every constant an initializer and every node with a name of its own.

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
    return proto


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
        if node.op_type not in ("MatMul", "Gemm") or node.input[1] not in weights or node.input[0] in weights:
            continue
        weight = weights[node.input[1]]
        attributes = {attribute.name: attribute for attribute in node.attribute}
        scaled = any(name in attributes and attributes[name].f != 1.0 for name in ("alpha", "beta"))
        turned = "transA" in attributes and bool(attributes["transA"].i)
        if weight.data_type != 1 or len(weight.dims) != 2 or scaled or turned:
            continue
        transposed = "transB" in attributes and bool(attributes["transB"].i)
        outputs = weight.dims[0 if transposed else 1]
        found.append(Product(node.name, node.input[0], node.input[1], outputs, transposed))
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
    name = None
    if node.op_type == "Gemm":
        name = node.input[2] if len(node.input) > 2 else None
    elif len(readers) == 1 and readers[0].op_type == "Add":
        name = next((other for other in readers[0].input if other != node.output[0]), None)
    if name not in weights or list(weights[name].dims) != [product.outputs]:
        return None
    return name if sum(name in reader.input for reader in proto.graph.node) == 1 else None
