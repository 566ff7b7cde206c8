"""The scale of attention scores, 1/√size, is folded into the weights and biases of the queries.

Scores are `queries · keysᵀ / √size`: a pass over `[batch, heads, tokens, tokens]` that multiplying the constants by the
same number makes unnecessary. The same goes for any other scalar factor that leads to constants through reshapes,
transposes and sums with biases. Weights that layers share (ALBERT's) stay shared.
"""

from typing import Any

import numpy as np

from export.rewrites.onnx_graph import OnnxGraph

_MOVES = {"Identity", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze"}
"""Operators that only move elements."""


def fold_scales(graph: OnnxGraph) -> int:
    """The number of scalar factors that went into constants."""
    scaled: dict[tuple[str, float], str] = {}
    folded = 0
    for node in list(graph.nodes):
        factor, value = _scalar_factor(node, graph)
        if factor is None or node.output[0] in graph.outputs:
            continue
        constants = _constants_behind(value, graph)
        if constants is None:
            continue
        for reader, number in constants:
            name = reader.input[number]
            key = (name, factor)
            if key not in scaled:
                constant = graph.constants[name]
                scaled[key] = graph.add_constant((constant * factor).astype(constant.dtype), f"{name}_scaled")
            reader.input[number] = scaled[key]
        graph.replace(node.output[0], value)
        graph.prune()
        folded += 1
    return folded


def _scalar_factor(node: Any, graph: OnnxGraph) -> tuple[float | None, str]:
    if node.op_type == "Div" and (divisor := graph.scalar(node.input[1])):
        return 1 / divisor, node.input[0]
    if node.op_type == "Mul":
        for number in (0, 1):
            factor = graph.scalar(node.input[number])
            if factor is not None and graph.constants[node.input[number]].dtype == np.float32:
                return factor, node.input[1 - number]
    return None, ""


def _constants_behind(value: str, graph: OnnxGraph) -> list[tuple[Any, int]] | None:
    """Constants, as inputs of nodes, that multiply `value` if they are multiplied; None if there are none such."""
    producers, readers = graph.producers(), graph.readers()
    found: list[tuple[Any, int]] = []
    while True:
        node = producers.get(value)
        if node is None or len(readers[value]) > 1 or len(node.output) > 1:
            return None
        constant = [number for number, name in enumerate(node.input) if name in graph.constants]
        if node.op_type in _MOVES:
            value = node.input[0]
        elif node.op_type == "Add" and len(constant) == 1:
            found.append((node, constant[0]))
            value = node.input[1 - constant[0]]
        elif node.op_type == "MatMul":
            if constant:
                return [*found, (node, constant[-1])]
            value = node.input[0]
        elif node.op_type == "Gemm" and constant == list(range(1, len(node.input))):
            return [*found, *((node, number) for number in constant)]
        elif node.op_type == "Mul" and constant:
            return [*found, (node, constant[0])]
        else:
            return None
