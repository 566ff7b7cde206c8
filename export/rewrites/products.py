"""Products of one value with several weights become one product: queries, keys and values; gate and up of a Llama.

One wide product packs its left side once and keeps the cores busier than three narrow ones; a Split gives the parts
back. In the last layer, where queries are made of one row (see `last_layer`), keys and values become one. Weights that
layers share (ALBERT's) stay shared.
"""

from collections import defaultdict
from typing import Any

import numpy as np

from export.rewrites.onnx_graph import Array, OnnxGraph


def merge_products(graph: OnnxGraph) -> int:
    """The number of products that went into a wider one."""
    groups: dict[tuple[str, int], list[Any]] = defaultdict(list)
    for node in graph.nodes:
        weights = graph.constants.get(node.input[1]) if node.op_type == "MatMul" else None
        if weights is not None and weights.ndim == 2 and node.input[0] not in graph.constants:
            groups[node.input[0], weights.shape[0]].append(node)
    merged = 0
    shared: dict[tuple[str, ...], str] = {}
    for nodes in groups.values():
        if len(nodes) > 1:
            _merge(nodes, graph, shared)
            merged += len(nodes)
    graph.prune()
    return merged


def _merge(nodes: list[Any], graph: OnnxGraph, shared: dict[tuple[str, ...], str]) -> None:
    biases = [_bias(node, graph) for node in nodes]
    weights = [graph.constants[node.input[1]] for node in nodes]
    outputs = [bias[0].output[0] if bias else node.output[0] for node, bias in zip(nodes, biases, strict=True)]
    hint = nodes[0].output[0]
    names = tuple(node.input[1] for node in nodes)
    if names not in shared:
        shared[names] = graph.add_constant(np.concatenate(weights, axis=1), f"{names[0]}_merged")
    product = graph.add_node("MatMul", [nodes[0].input[0], shared[names]], f"{hint}_merged").output[0]
    if any(biases):
        parts = [
            np.broadcast_to(bias[1] if bias else np.float32(0), weight.shape[1:]).astype(weight.dtype)
            for bias, weight in zip(biases, weights, strict=True)
        ]
        bias_name = graph.add_constant(np.concatenate(parts), f"{names[0]}_bias_merged")
        product = graph.add_node("Add", [product, bias_name], f"{hint}_merged").output[0]
    sizes = graph.add_constant(np.array([weight.shape[1] for weight in weights], dtype=np.int64), "sizes")
    split = graph.add_node("Split", [product, sizes], f"{hint}_part", outputs=len(nodes), axis=-1)
    for old, new in zip(outputs, split.output, strict=True):
        graph.replace(old, new)


def _bias(node: Any, graph: OnnxGraph) -> tuple[Any, Array] | None:
    """The sum with a bias that alone reads the product `node`, and the bias."""
    readers = graph.readers().get(node.output[0], [])
    if len(readers) != 1 or readers[0][0].op_type != "Add" or node.output[0] in graph.outputs:
        return None
    add, number = readers[0]
    bias = graph.constants.get(add.input[1 - number])
    return (add, bias) if bias is not None and bias.ndim == 1 else None
