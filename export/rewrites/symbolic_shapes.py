"""Shapes with the names of the dynamic axes in them, such as `("batch", "sequence", 4, 8)`.

ONNX's own inference forgets what a -1 in a Reshape stands for, and ONNX Runtime's gives up on the length of a slice of
the position table. Both can be known here: the product of all axes stays the same, and a slice of a table by the length
of the text has that length in every run that doesn't fail (the sum of word and position embeddings has only one).
A shape that isn't known is left out; a dimension that isn't is None.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy.typing as npt

from export.rewrites.attributes import attribute_of
from export.rewrites.dimensions import Dim, Shape, arithmetic, broadcast, factors, product, solve_reshape
from export.rewrites.shape_elements import constant_elements, result_elements

ELEMENTWISE = {
    *("Abs", "Cast", "Ceil", "Clip", "Cos", "Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid", "Identity", "IsNaN"),
    *("LeakyRelu", "Log", "Neg", "Not", "Reciprocal", "Relu", "Round", "Sigmoid", "Sign", "Sin", "Softplus", "Sqrt"),
    "Tanh",
}
"""Operators of one tensor (any other inputs are scalars) that treat each element alike."""

BROADCAST = {
    *("Add", "And", "Div", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Max", "Min", "Mod", "Mul"),
    *("Or", "Pow", "Sub", "Where", "Xor"),
}
"""Operators of several tensors that treat each element alike."""

_SAME = ELEMENTWISE | {"CumSum", "LayerNormalization", "LogSoftmax", "ScatterElements", "ScatterND", "Softmax", "Trilu"}


@dataclass
class Inference:
    """What is known of a graph's values."""

    shapes: dict[str, Shape]
    elements: dict[str, tuple[Dim, ...]] = field(default_factory=dict)
    """Elements of the scalars and vectors of integers, in order."""


def infer(nodes: Sequence[Any], constants: dict[str, npt.NDArray[Any]], inputs: dict[str, Shape]) -> Inference:
    """Shapes of all values of a graph whose `nodes` are in order."""
    known = Inference({name: value.shape for name, value in constants.items()} | inputs)
    for name, value in constants.items():
        elements = constant_elements(value)
        if elements is not None:
            known.elements[name] = elements
    for node in nodes:
        shape = _shape(node, known)
        if shape is not None:
            known.shapes[node.output[0]] = shape
        if node.op_type == "Split":
            _split(node, known)
        elements = result_elements(node, known.shapes, known.elements)
        if elements is not None:
            known.elements[node.output[0]] = elements
    return known


def _shape(node: Any, known: Inference) -> Shape | None:
    operator = node.op_type
    shapes = [known.shapes.get(name) for name in node.input if name]
    if operator in BROADCAST:
        full = [shape for shape in shapes if shape is not None]
        return broadcast(full) if len(full) == len(shapes) else None
    if not shapes or shapes[0] is None:
        return None
    if operator in _SAME:
        return shapes[0]
    rule = _RULES.get(operator)
    return rule(node, shapes[0], known) if rule else None


def _numbers(node: Any, number: int, known: Inference) -> tuple[Dim, ...] | None:
    return known.elements.get(node.input[number]) if len(node.input) > number else None


def _matmul(node: Any, left: Shape, known: Inference) -> Shape | None:
    right = known.shapes.get(node.input[1])
    if right is None or len(left) < 2 or len(right) < 2:
        return None
    if len(left) == len(right) == 2:
        return (left[0], right[1])
    return (*broadcast([left[:-2], right[:-2]]), left[-2], right[-1])


def _gemm(node: Any, left: Shape, known: Inference) -> Shape | None:
    right = known.shapes.get(node.input[1])
    if right is None:
        return None
    return (left[attribute_of(node, "transA", 0)], right[1 - attribute_of(node, "transB", 0)])


def _transpose(node: Any, shape: Shape, known: Inference) -> Shape:  # noqa: ARG001
    order = attribute_of(node, "perm", list(reversed(range(len(shape)))))
    return tuple(shape[axis] for axis in order)


def _reshape(node: Any, shape: Shape, known: Inference) -> Shape | None:
    target = _numbers(node, 1, known)
    return None if target is None else solve_reshape(shape, target)


def _unsqueeze(node: Any, shape: Shape, known: Inference) -> Shape | None:
    axes = _numbers(node, 1, known)
    if axes is None:
        return None
    rank = len(shape) + len(axes)
    new = {axis % rank for axis in axes if isinstance(axis, int)}
    dims = iter(shape)
    return tuple(1 if axis in new else next(dims) for axis in range(rank))


def _squeeze(node: Any, shape: Shape, known: Inference) -> Shape | None:
    axes = _numbers(node, 1, known)
    if axes is None:
        return None
    gone = {axis % len(shape) for axis in axes if isinstance(axis, int)}
    return tuple(dim for axis, dim in enumerate(shape) if axis not in gone)


def _gather(node: Any, shape: Shape, known: Inference) -> Shape | None:
    indices = known.shapes.get(node.input[1])
    if indices is None:
        return None
    axis = attribute_of(node, "axis", 0) % len(shape)
    return (*shape[:axis], *indices, *shape[axis + 1 :])


def _gather_elements(node: Any, shape: Shape, known: Inference) -> Shape | None:  # noqa: ARG001
    return known.shapes.get(node.input[1])


def _gather_nd(node: Any, shape: Shape, known: Inference) -> Shape | None:
    indices = known.shapes.get(node.input[1])
    if indices is None or not isinstance(indices[-1], int):
        return None
    return (*indices[:-1], *shape[attribute_of(node, "batch_dims", 0) + indices[-1] :])


def _concat(node: Any, shape: Shape, known: Inference) -> Shape | None:
    shapes = [known.shapes.get(name) for name in node.input]
    axis = attribute_of(node, "axis", 0) % len(shape)
    sizes = [part[axis] for part in shapes if part is not None and len(part) == len(shape)]
    whole = sum(size for size in sizes if isinstance(size, int))
    exact = len(sizes) == len(shapes) and all(isinstance(size, int) for size in sizes)
    return (*shape[:axis], whole if exact else None, *shape[axis + 1 :])


def _slice(node: Any, shape: Shape, known: Inference) -> Shape | None:
    starts, ends = _numbers(node, 1, known), _numbers(node, 2, known)
    axes = _numbers(node, 3, known) if len(node.input) > 3 else tuple(range(len(starts or ())))
    steps = _numbers(node, 4, known) if len(node.input) > 4 else (1,) * len(starts or ())
    if axes is None:
        return (None,) * len(shape)
    result = list(shape)
    for number, axis in enumerate(axes):
        if not isinstance(axis, int):
            return None
        start, end = starts[number] if starts else None, ends[number] if ends else None
        step = steps[number] if steps else None
        result[axis] = _sliced(shape[axis], start, end) if step == 1 else None
    return tuple(result)


def _sliced(size: Dim, start: Dim, end: Dim) -> Dim:
    if start == 0 and isinstance(end, int) and end >= 2**31 - 1:
        return size
    if start == 0 and end == size:
        return size
    if start == 0 and isinstance(size, int) and size > 1 and isinstance(end, str):
        return end  # of a table; a text longer than it fails at the next sum
    if isinstance(start, int) and isinstance(end, int) and isinstance(size, int):
        return len(range(*slice(start, end).indices(size)))
    if start == 0 and end == 1:
        return 1
    return None


def _expand(node: Any, shape: Shape, known: Inference) -> Shape | None:
    target = _numbers(node, 1, known)
    return None if target is None else broadcast([shape, target])


def _conv(node: Any, shape: Shape, known: Inference) -> Shape | None:
    """A convolution over tokens that keeps their number."""
    weights = known.shapes.get(node.input[1])
    pads, kernel = attribute_of(node, "pads", []), attribute_of(node, "kernel_shape", [])
    if weights is None or len(shape) != 3 or len(pads) != 2 or sum(pads) != kernel[0] - 1:
        return None
    plain = attribute_of(node, "strides", [1]) == [1] and attribute_of(node, "dilations", [1]) == [1]
    return (shape[0], weights[0], shape[2]) if plain else None


def _tile(node: Any, shape: Shape, known: Inference) -> Shape | None:
    times = _numbers(node, 1, known)
    return (
        None if times is None else tuple(arithmetic("Mul", dim, many) for dim, many in zip(shape, times, strict=True))
    )


def _flatten(node: Any, shape: Shape, known: Inference) -> Shape:  # noqa: ARG001
    axis = attribute_of(node, "axis", 1)
    sides = (factors(shape[:axis]), factors(shape[axis:]))
    return tuple(None if side is None else product(*side) for side in sides)


def _shape_of(node: Any, shape: Shape, known: Inference) -> Shape:  # noqa: ARG001
    return (len(range(len(shape))[slice(attribute_of(node, "start", 0), attribute_of(node, "end", None))]),)


def _reduce(node: Any, shape: Shape, known: Inference) -> Shape | None:
    axes: Sequence[Any] | None = attribute_of(node, "axes", None) or _numbers(node, 1, known)
    if axes is None:
        return None
    gone = {axis % len(shape) for axis in axes}
    if attribute_of(node, "keepdims", 1):
        return tuple(1 if axis in gone else dim for axis, dim in enumerate(shape))
    return tuple(dim for axis, dim in enumerate(shape) if axis not in gone)


def _arg(node: Any, shape: Shape, known: Inference) -> Shape:  # noqa: ARG001
    gone = attribute_of(node, "axis", 0) % len(shape)
    if attribute_of(node, "keepdims", 1):
        return tuple(1 if axis == gone else dim for axis, dim in enumerate(shape))
    return tuple(dim for axis, dim in enumerate(shape) if axis != gone)


def _constant_of_shape(node: Any, shape: Shape, known: Inference) -> Shape | None:  # noqa: ARG001
    return _numbers(node, 0, known)


def _range(node: Any, shape: Shape, known: Inference) -> Shape:  # noqa: ARG001
    start, end, step = (_numbers(node, number, known) for number in range(3))
    return (end[0] if start == (0,) and step == (1,) and end else None,)


def _split(node: Any, known: Inference) -> None:
    shape = known.shapes.get(node.input[0])
    if shape is None:
        return
    axis = attribute_of(node, "axis", 0) % len(shape)
    sizes = _numbers(node, 1, known)
    whole = shape[axis]
    if sizes is None and isinstance(whole, int) and whole % len(node.output) == 0:
        sizes = (whole // len(node.output),) * len(node.output)
    for number, output in enumerate(node.output):
        known.shapes[output] = (*shape[:axis], sizes[number] if sizes else None, *shape[axis + 1 :])


_RULES: dict[str, Callable[[Any, Shape, Inference], Shape | None]] = {
    "ArgMax": _arg,
    "Concat": _concat,
    "ConstantOfShape": _constant_of_shape,
    "Conv": _conv,
    "Expand": _expand,
    "Flatten": _flatten,
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "GatherND": _gather_nd,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "Range": _range,
    "ReduceMax": _reduce,
    "ReduceMean": _reduce,
    "ReduceSum": _reduce,
    "Reshape": _reshape,
    "Shape": _shape_of,
    "Slice": _slice,
    "Squeeze": _squeeze,
    "Tile": _tile,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
