"""What depends on no input is computed once, before the model is loaded; what is computed twice is computed once.

Tracing leaves dozens of nodes for each layer that compute the shape of a Reshape from the shape of something else; the
shape is known (see `symbolic_shapes`) but for batch and sequence, so a constant with 0 ("as it is") and one -1 does.
Expands and slices that change nothing, Expands that are broadcast anyway, identities and duplicates go. Both engines
fold constants when they load a file, but ONNX Runtime keeps everything that hangs on a dynamic axis, at about a
microsecond a node for every call.
"""

from typing import Any

import numpy as np

from export.rewrites.dimensions import Dim, Shape, broadcast, solve_reshape
from export.rewrites.onnx_graph import OnnxGraph
from export.rewrites.symbolic_shapes import BROADCAST, ELEMENTWISE, infer

_MOST_BYTES = 2**22
"""A larger constant (a mask of all positions with all positions) is left to be computed."""


def fold_constants(graph: OnnxGraph) -> int:
    """Fold, until nothing changes; the number of nodes that went."""
    before = len(graph.nodes)
    graph.prune()
    _read_axes_from_inputs(graph)
    while _fold_shapes(graph) + _fold_values(graph) + _merge_duplicates(graph) + _drop_expands(graph):
        graph.prune()
    return before - len(graph.nodes)


def _fold_shapes(graph: OnnxGraph) -> int:
    known = infer(graph.nodes, graph.constants, graph.input_shapes)
    changed = 0
    for node in list(graph.nodes):
        output = node.output[0]
        if output in graph.outputs:
            continue
        source = known.shapes.get(node.input[0]) if node.input else None
        elements = known.elements.get(output)
        if elements is not None and len(node.output) == 1 and all(isinstance(element, int) for element in elements):
            shape = known.shapes.get(output)
            if shape is None or not all(isinstance(dim, int) for dim in shape):
                continue
            value = np.array(elements, dtype=_integer_type(node, graph)).reshape([int(dim or 0) for dim in shape])
            graph.replace(output, graph.add_constant(value, output))
            changed += 1
        elif node.op_type == "Reshape" and node.input[1] not in graph.constants and source is not None:
            target = _constant_target(source, known.elements.get(node.input[1]))
            if target is not None:
                node.input[1] = graph.add_constant(np.array(target, dtype=np.int64), output)
                changed += 1
        elif source is not None and _changes_nothing(node.op_type, source, known.shapes.get(output)):
            graph.replace(output, node.input[0])
            changed += 1
    graph.prune()
    return changed


def _read_axes_from_inputs(graph: OnnxGraph) -> None:
    """Let each number that is the length of an input's axis be read from the input, and from nothing behind it."""
    graph.prune()
    known = infer(graph.nodes, graph.constants, graph.input_shapes)
    lengths = {dim: (name, axis) for name, shape in graph.input_shapes.items() for axis, dim in enumerate(shape)}
    vectors: dict[str, str] = {}
    zero = graph.add_constant(np.array([0], dtype=np.int64), "axis")
    for node in list(graph.nodes):
        elements, shape = known.elements.get(node.output[0]), known.shapes.get(node.output[0])
        if elements is None or len(elements) != 1 or elements[0] not in lengths or shape not in {(), (1,)}:
            continue
        if _integer_type(node, graph) != np.int64:
            continue
        dim = str(elements[0])
        if dim not in vectors:
            name, axis = lengths[dim]
            vectors[dim] = graph.add_node("Shape", [name], dim, start=axis, end=axis + 1).output[0]
        number = vectors[dim] if shape else graph.add_node("Squeeze", [vectors[dim], zero], dim).output[0]
        graph.replace(node.output[0], number)
    graph.prune()


def _integer_type(node: Any, graph: OnnxGraph) -> Any:
    """The type of an integer result: a Shape's is int64, a Cast says it, another operator keeps its input's."""
    from onnx import TensorProto

    producers = graph.producers()
    while node is not None:
        if node.op_type == "Cast":
            return np.int32 if node.attribute[0].i == TensorProto.INT32 else np.int64
        if node.op_type == "Equal":
            return np.bool_
        name = node.input[1] if node.op_type == "Where" else node.input[0]
        if node.op_type == "Shape":
            return np.int64
        if name in graph.constants:
            return graph.constants[name].dtype
        node = producers.get(name)
    return np.int64


def _constant_target(source: Shape, target: tuple[Dim, ...] | None) -> list[int] | None:
    """`target` with 0 where an axis stays as it is and at most one -1, or None."""
    if target is None:
        return None
    solved = solve_reshape(source, target)
    if solved is None or None in solved or None in source:
        return None
    entries: list[int] = []
    for axis, dim in enumerate(solved):
        if isinstance(dim, int):
            entries.append(dim)
        else:
            entries.append(0 if axis < len(source) and source[axis] == dim else -1)
    return entries if entries.count(-1) <= 1 and 0 not in solved else None


def _changes_nothing(operator: str, source: Shape, result: Shape | None) -> bool:
    if operator == "Identity":
        return True
    return operator in {"Expand", "Slice", "Reshape"} and source == result and None not in source


def _fold_values(graph: OnnxGraph) -> int:
    from onnx.reference import ReferenceEvaluator

    changed = 0
    for node in list(graph.nodes):
        if (
            node.output[0] in graph.outputs
            or not node.input
            or not all(name in graph.constants or not name for name in node.input)
        ):
            continue
        feeds = {name: graph.constants[name] for name in node.input if name}
        results = ReferenceEvaluator(node, opsets={"": graph.opset}).run(None, feeds)
        if sum(np.asarray(result).nbytes for result in results) > _MOST_BYTES:
            continue
        for output, result in zip(node.output, results, strict=True):
            graph.replace(output, graph.add_constant(np.asarray(result), output))
        graph.nodes.remove(node)
        changed += 1
    return changed


def _merge_duplicates(graph: OnnxGraph) -> int:
    changed = 0
    constants: dict[Any, str] = {}
    renamed: dict[str, str] = {}
    for name, value in graph.constants.items():
        if value.nbytes <= 64:
            renamed[name] = constants.setdefault((value.dtype.str, value.shape, value.tobytes()), name)
    first: dict[Any, Any] = {}
    for node in list(graph.nodes):
        for number, name in enumerate(node.input):
            node.input[number] = renamed.get(name, name)
        attributes = tuple(sorted(entry.SerializeToString() for entry in node.attribute))
        twin = first.setdefault((node.op_type, node.domain, tuple(node.input), attributes, len(node.output)), node)
        if twin is not node and not set(node.output) & set(graph.outputs):
            for output, same in zip(node.output, twin.output, strict=True):
                graph.replace(output, same)
            changed += 1
    graph.prune()
    return changed


def _drop_expands(graph: OnnxGraph) -> int:
    """Drop each Expand whose result is broadcast anyway by what reads it, such as a mask's."""
    shapes = graph.shapes()
    for node in graph.nodes:
        if node.op_type == "Expand" and _is_broadcast_anyway(node, graph, shapes):
            graph.replace(node.output[0], node.input[0])
            return 1 + _drop_expands(graph)
    return 0


def _is_broadcast_anyway(expand: Any, graph: OnnxGraph, shapes: dict[str, Shape]) -> bool:
    """Whether every value behind `expand` that isn't made element by element keeps its shape without it."""
    if expand.input[0] not in shapes:
        return False
    smaller = {expand.output[0]: shapes[expand.input[0]]}
    for node in graph.nodes:
        if not smaller.keys() & set(node.input):
            continue
        operands = [smaller.get(name, shapes.get(name)) for name in node.input if name]
        if node.op_type not in ELEMENTWISE | BROADCAST or None in operands or node.output[0] not in shapes:
            return False
        found = broadcast([shape for shape in operands if shape is not None])
        if None in found or None in shapes[node.output[0]]:
            return False
        if found != shapes[node.output[0]]:
            smaller[node.output[0]] = found
    return not smaller.keys() & set(graph.outputs)
