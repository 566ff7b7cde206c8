"""Embeddings whose row never changes are added to a table beforehand.

RoBERTa has one token type, whose row it adds to every token; BERT's types are a constant, too, once `token_types`
has dropped that input. The row is added to the position table, which drops a lookup and a sum over
`[batch, tokens, hidden]`.

The position table is taken rather than the word table, whose range decides how well it is quantized; a model without
positions takes the word table.
"""

from typing import Any

import numpy as np

from export.rewrites.onnx_graph import Array, OnnxGraph

_MOVES = {"Expand", "Gather", "Identity", "Reshape", "Slice", "Squeeze", "Unsqueeze"}
"""Operators that give nothing but zeros from zeros."""


def sum_embeddings(graph: OnnxGraph) -> int:
    """The number of rows that went into a table."""
    zeros = {name for name, value in graph.constants.items() if value.dtype == np.int64 and not value.any()}
    summed = 0
    for node in list(graph.nodes):
        if node.op_type in _MOVES and node.input[0] in zeros:
            zeros.add(node.output[0])
        elif node.op_type == "Add":
            summed += any(_add_to_a_table(node, number, zeros, graph) for number in (0, 1))
    graph.prune()
    return summed


def _add_to_a_table(add: Any, number: int, zeros: set[str], graph: OnnxGraph) -> bool:
    """Add the row that is input `number` of `add` to a table whose rows are in the same sum."""
    readers, producers = graph.readers(), graph.producers()
    row = _row(add.input[number], zeros, graph, producers)
    if row is None:
        return False
    others = _lookups(add.input[1 - number], graph, producers)
    value = add.output[0]
    while [reader.op_type for reader, _ in readers.get(value, [])] == ["Add"]:
        reader, at = readers[value][0]
        others += _lookups(reader.input[1 - at], graph, producers)
        value = reader.output[0]
    if not others:
        return False
    table = min(others, key=lambda other: len(graph.constants[other.input[0]]))
    summed = graph.constants[table.input[0]] + row
    table.input[0] = graph.add_constant(summed.astype(row.dtype), f"{table.input[0]}_summed")
    graph.replace(add.output[0], add.input[1 - number])
    return True


def _row(value: str, zeros: set[str], graph: OnnxGraph, producers: dict[str, Any]) -> Array | None:
    """The row `[hidden]` that `value` is for every token: a constant, or what a table has for 0."""
    constant, node = graph.constants.get(value), producers.get(value)
    if constant is not None and constant.ndim and constant.size == constant.shape[-1]:
        return np.asarray(constant.reshape(-1))
    if node is not None and node.op_type == "Gather" and node.input[1] in zeros and node.input[0] in graph.constants:
        return np.asarray(graph.constants[node.input[0]][0])
    return None


def _lookups(value: str, graph: OnnxGraph, producers: dict[str, Any]) -> list[Any]:
    """Lookups in tables that `value` is the sum of, and that nothing else reads."""
    node = producers.get(value)
    if node is None or len(graph.readers().get(value, [])) != 1:
        return []
    if node.op_type == "Add":
        return [found for name in node.input for found in _lookups(name, graph, producers)]
    return [node] if node.op_type == "Gather" and node.input[0] in graph.constants else []
