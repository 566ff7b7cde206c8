"""The last layer is computed only for the row that the head reads.

A classifier's head reads one token (`[CLS]`) of the last layer's output, yet the layer computes all of them. Here the
selection of the row moves up through everything that treats rows alike (layer norm, activations, residual sums,
products with weights, the softmax, the products with keys and values) until a value that something else needs in full:
the layer's input, of which keys and values are made, and DeBERTa's position scores. There, a Slice of one row is put.
Keys and values are still computed for all tokens; of the layer, that leaves 2/12 of the multiplications with weights
(BERT's sizes) and 1/tokens of the attention.

It works on any graph: an operator that isn't known ends the way up, and the slice is put there. A head that reads the
mean of all tokens has no selection, so nothing changes; nor does it in decoders, whose head reads another row of each
text.

Price: the graph no longer has the last layer's other rows, so it can't be used for anything but its logits.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from export.rewrites.attributes import attribute_of
from export.rewrites.dimensions import Shape, factors
from export.rewrites.onnx_graph import OnnxGraph
from export.rewrites.symbolic_shapes import BROADCAST, ELEMENTWISE

Operands = list[tuple[int, int]]
"""Inputs of a node that must be narrowed, each with its axis."""


def narrow_last_layer(graph: OnnxGraph) -> int:
    """The number of operators that compute one row instead of all."""
    shapes = graph.shapes()
    selections = [found for node in graph.nodes if (found := _selection(node, graph, shapes))]
    if not selections:
        return 0
    narrowing = _Narrowing(graph, shapes)
    for selection in selections:
        narrowing.demand(selection.node, 0, selection.axis, selection.index)
    return narrowing.run()


@dataclass(frozen=True)
class _Selection:
    node: Any
    axis: int
    index: int


def _selection(node: Any, graph: OnnxGraph, shapes: dict[str, Shape]) -> _Selection | None:
    """`node` as the selection of one row of all tokens of a float value that is not an embedding, or None."""
    if node.op_type != "Gather" or node.input[0] in graph.constants or node.input[0] in graph.inputs:
        return None
    shape, index = shapes.get(node.input[0]), graph.constants.get(node.input[1])
    if shape is None or len(shape) != 3 or index is None or index.ndim or int(index) not in {0, -1}:
        return None  # any other index would have to become 0
    axis = attribute_of(node, "axis", 0) % 3
    return _Selection(node, axis, int(index)) if axis == 1 and isinstance(shape[1], str) else None


class _Narrowing:
    """Demands for one row of values, worked off from the end of the graph to its beginning."""

    def __init__(self, graph: OnnxGraph, shapes: dict[str, Shape]) -> None:
        self._graph = graph
        self._shapes = shapes
        self._readers = graph.readers()
        self._demands: dict[str, list[tuple[Any, int, int, int]]] = {}
        """Value to the readers that want one row of it: node, number of the input, axis, index of the row."""
        self._slices: dict[tuple[str, int, int], str] = {}

    def demand(self, reader: Any, number: int, axis: int, index: int) -> None:
        """`reader` wants only row `index` along `axis` of its input `number`."""
        self._demands.setdefault(reader.input[number], []).append((reader, number, axis, index))

    def run(self) -> int:
        """Narrow what can be; the number of nodes that compute one row now."""
        narrowed = 0
        for node in reversed(list(self._graph.nodes)):
            for output in node.output:
                demands = self._demands.pop(output, None)
                if demands is None:
                    continue
                operands = self._pass_on(node, output, demands)
                if operands is None:
                    self._put_slice(output, demands)
                    continue
                narrowed += 1
                for number, axis in operands:
                    self.demand(node, number, axis, demands[0][3])
        # What is left are inputs of the graph and constants.
        for value, demands in self._demands.items():
            self._put_slice(value, demands)
        return narrowed

    def _pass_on(self, node: Any, output: str, demands: list[tuple[Any, int, int, int]]) -> Operands | None:
        """Inputs to narrow so that `node` makes one row; None if it must make all of them, or can't make one."""
        wanted = {(axis, index) for _, _, axis, index in demands}
        rule = _RULES.get(node.op_type)
        if (
            output in self._graph.outputs
            or len(demands) < len(self._readers[output])
            or len(wanted) > 1
            or rule is None
        ):
            return None
        if len(node.output) > 1:
            return None
        return rule(node, demands[0][2], self._graph, self._shapes)

    def _put_slice(self, value: str, demands: list[tuple[Any, int, int, int]]) -> None:
        for reader, number, axis, index in demands:
            if (
                reader.op_type == "Gather"
                and number == 0
                and attribute_of(reader, "axis", 0) == axis
                and len(demands) == 1
            ):
                continue  # the selection itself: a slice before it would be the same again
            key = (value, axis, index)
            if key not in self._slices:
                bounds = [[index], [index + 1 if index != -1 else 2**63 - 1], [axis], [1]]
                constants = [self._graph.add_constant(np.array(bound, dtype=np.int64), "row") for bound in bounds]
                self._slices[key] = self._graph.add_node("Slice", [value, *constants], f"{value}_row").output[0]
            reader.input[number] = self._slices[key]


def _elementwise(node: Any, axis: int, graph: OnnxGraph, shapes: dict[str, Shape]) -> Operands | None:  # noqa: ARG001
    operands: Operands = []
    for number, name in enumerate(node.input):
        found = _elementwise_operands(shapes.get(name), shapes.get(node.output[0]), axis) if name else []
        if found is None:
            return None
        operands += [(number, own) for _, own in found]
    return operands


def _elementwise_operands(shape: Shape | None, result: Shape | None, axis: int) -> Operands | None:
    """Where the row is in an operand that is broadcast; nowhere if it is the same for all rows."""
    if shape is None or result is None:
        return None
    own = axis - len(result) + len(shape)
    if own < 0 or shape[own] == 1:
        return []
    return [(0, own)] if shape[own] == result[axis] is not None else None


def _first(node: Any, axis: int, graph: OnnxGraph, shapes: dict[str, Shape]) -> Operands | None:  # noqa: ARG001
    """Row-wise operators along one axis: their `axis` attribute (by default the last) must be another one."""
    rank = len(shapes.get(node.input[0], ()))
    own = attribute_of(node, "axis", -1)
    if not rank:
        return None
    alike = axis < own % rank if node.op_type == "LayerNormalization" else axis != own % rank
    return [(0, axis)] if alike else None


def _matmul(node: Any, axis: int, graph: OnnxGraph, shapes: dict[str, Shape]) -> Operands | None:  # noqa: ARG001
    left, right = shapes.get(node.input[0]), shapes.get(node.input[1])
    if left is None or right is None or len(left) < 2 or len(right) < 2:
        return None
    rank = max(len(left), len(right))
    if axis == rank - 2:
        return [(0, len(left) - 2)]
    return [(1, len(right) - 1)] if axis == rank - 1 else None


def _gemm(node: Any, axis: int, graph: OnnxGraph, shapes: dict[str, Shape]) -> Operands | None:  # noqa: ARG001
    bias = shapes.get(node.input[2], ()) if len(node.input) > 2 else ()
    plain = axis == 0 and not attribute_of(node, "transA", 0) and (len(bias) < 2 or bias[0] == 1)
    return [(0, 0)] if plain else None


def _transpose(node: Any, axis: int, graph: OnnxGraph, shapes: dict[str, Shape]) -> Operands | None:  # noqa: ARG001
    order = attribute_of(node, "perm")
    return None if order is None else [(0, order[axis])]


def _reshape(node: Any, axis: int, graph: OnnxGraph, shapes: dict[str, Shape]) -> Operands | None:
    """The row must be an axis of the source, too, with as many elements before and behind it."""
    source, result = shapes.get(node.input[0]), shapes.get(node.output[0])
    if source is None or result is None or result[axis] is None or attribute_of(node, "allowzero", 0):
        return None
    before, behind = factors(result[:axis]), factors(result[axis + 1 :])
    if before is None or behind is None:
        return None
    for own, dim in enumerate(source):
        if dim == result[axis] and factors(source[:own]) == before and factors(source[own + 1 :]) == behind:
            _shorten(node, axis, len(result), graph)
            return [(0, own)]
    return None


def _shorten(node: Any, axis: int, rank: int, graph: OnnxGraph) -> None:
    """Let a Reshape or an Expand make 1 of `axis`. Another axis that is -1 is solved to what it was before."""
    here = np.arange(rank) == axis
    target = graph.constants.get(node.input[1])
    if target is not None:
        node.input[1] = graph.add_constant(np.where(here, 1, target), f"{node.output[0]}_shape")
        return
    inputs = [graph.add_constant(here, "row"), graph.add_constant(np.array(1, dtype=np.int64), "row"), node.input[1]]
    node.input[1] = graph.add_node("Where", inputs, f"{node.output[0]}_shape").output[0]


def _unsqueeze(node: Any, axis: int, graph: OnnxGraph, shapes: dict[str, Shape]) -> Operands | None:
    axes, shape = graph.constants.get(node.input[1]), shapes.get(node.output[0])
    if axes is None or shape is None:
        return None
    new = {int(entry) % len(shape) for entry in axes}
    return None if axis in new else [(0, axis - sum(entry < axis for entry in new))]


def _squeeze(node: Any, axis: int, graph: OnnxGraph, shapes: dict[str, Shape]) -> Operands | None:
    axes = graph.constants.get(node.input[1]) if len(node.input) > 1 else None
    shape = shapes.get(node.input[0])
    if axes is None or shape is None:
        return None
    gone = {int(entry) % len(shape) for entry in axes}
    return [(0, [own for own in range(len(shape)) if own not in gone][axis])]


def _reduce(node: Any, axis: int, graph: OnnxGraph, shapes: dict[str, Shape]) -> Operands | None:
    shape = shapes.get(node.input[0])
    axes = attribute_of(node, "axes")
    if axes is None and len(node.input) > 1 and node.input[1] in graph.constants:
        axes = graph.constants[node.input[1]].tolist()
    if axes is None or shape is None:
        return None
    gone = {entry % len(shape) for entry in axes}
    if attribute_of(node, "keepdims", 1):
        return None if axis in gone else [(0, axis)]
    return [(0, [own for own in range(len(shape)) if own not in gone][axis])]


def _concat(node: Any, axis: int, graph: OnnxGraph, shapes: dict[str, Shape]) -> Operands | None:  # noqa: ARG001
    shape = shapes.get(node.output[0])
    if shape is None or attribute_of(node, "axis", 0) % len(shape) == axis:
        return None
    return [(number, axis) for number in range(len(node.input))]


def _slice(node: Any, axis: int, graph: OnnxGraph, shapes: dict[str, Shape]) -> Operands | None:
    axes, shape = graph.constants.get(node.input[3]) if len(node.input) > 3 else None, shapes.get(node.input[0])
    if axes is None or shape is None or axis in {int(entry) % len(shape) for entry in axes}:
        return None
    return [(0, axis)]


def _gather(node: Any, axis: int, graph: OnnxGraph, shapes: dict[str, Shape]) -> Operands | None:
    """A constant index on another axis."""
    index = graph.constants.get(node.input[1])
    shape = shapes.get(node.input[0])
    if index is None or index.ndim or shape is None or node.input[0] in graph.constants:
        return None
    own = attribute_of(node, "axis", 0) % len(shape)
    return [(0, axis if axis < own else axis + 1)]


def _gather_elements(node: Any, axis: int, graph: OnnxGraph, shapes: dict[str, Shape]) -> Operands | None:  # noqa: ARG001
    """Along its own axis an index picks from all of the data; along another, row from row."""
    data, index = shapes.get(node.input[0]), shapes.get(node.input[1])
    if data is None or index is None:
        return None
    if attribute_of(node, "axis", 0) % len(data) == axis:
        return [(1, axis)]
    return [(0, axis), (1, axis)] if data[axis] == index[axis] is not None else None


def _expand(node: Any, axis: int, graph: OnnxGraph, shapes: dict[str, Shape]) -> Operands | None:
    operands = _elementwise_operands(shapes.get(node.input[0]), shapes.get(node.output[0]), axis)
    if operands is None:
        return None
    _shorten(node, axis, len(shapes[node.output[0]]), graph)
    return operands


_RULES: dict[str, Callable[[Any, int, OnnxGraph, dict[str, Shape]], Operands | None]] = {
    **dict.fromkeys(ELEMENTWISE | BROADCAST, _elementwise),
    "Concat": _concat,
    "Expand": _expand,
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "Gemm": _gemm,
    "LayerNormalization": _first,
    "LogSoftmax": _first,
    "MatMul": _matmul,
    "ReduceMax": _reduce,
    "ReduceMean": _reduce,
    "ReduceSum": _reduce,
    "Reshape": _reshape,
    "Slice": _slice,
    "Softmax": _first,
    "Squeeze": _squeeze,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
