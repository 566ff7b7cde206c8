"""Shapes with the names of the dynamic axes in them, such as `("batch", "sequence", 4, 8)`.

ONNX's own inference forgets what a -1 in a Reshape stands for, and ONNX Runtime's gives up on the length of a slice of
the position table. Both can be known here: the product of all axes stays the same, and a slice of a table by the length
of the text has that length in every run that doesn't fail (the sum of word and position embeddings has only one).

A dimension is a number, a name, a product of these ("4*batch"), or None where it isn't known; a shape that isn't known
at all is left out. Nothing is ever guessed.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

Dim = int | str | None
Shape = tuple[Dim, ...]

_MOST_ELEMENTS = 64
"""Integer tensors up to this size are followed element by element: they are shapes."""

_INTEGERS = {6, 7}
"""int32 and int64 in ONNX's numbering."""

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
    contents: dict[str, tuple[Dim, ...]] = field(default_factory=dict)
    """Elements of the small integer tensors, in order."""


def infer(nodes: Sequence[Any], constants: dict[str, npt.NDArray[Any]], inputs: dict[str, Shape]) -> Inference:
    """Shapes of all values of a graph whose `nodes` are in order."""
    known = Inference({name: value.shape for name, value in constants.items()} | inputs)
    for name, value in constants.items():
        if value.dtype in (np.int64, np.int32, np.bool_) and value.size <= _MOST_ELEMENTS:
            known.contents[name] = tuple(int(element) for element in value.reshape(-1))
    for node in nodes:
        shape = _shape(node, known)
        if shape is not None:
            known.shapes[node.output[0]] = shape
        if node.op_type == "Split":
            _split(node, known)
        contents = _contents(node, known)
        if contents is not None:
            known.contents[node.output[0]] = contents
    return known


def solve_reshape(source: Shape, target: Sequence[Dim]) -> Shape | None:
    """The shape that a Reshape of `source` to `target` (with 0 and -1) has, or None."""
    shape: list[Dim] = [
        source[axis] if entry == 0 and axis < len(source) else entry for axis, entry in enumerate(target)
    ]
    if -1 not in shape:
        return tuple(shape)
    open_axis = shape.index(-1)
    whole, rest = factors(source), factors([*shape[:open_axis], *shape[open_axis + 1 :]])
    if whole is None or rest is None or rest[1] - whole[1] or whole[0] % rest[0]:
        shape[open_axis] = None
    else:
        shape[open_axis] = product(whole[0] // rest[0], whole[1] - rest[1])
    return tuple(shape)


def factors(shape: Sequence[Dim]) -> tuple[int, Counter[str]] | None:
    """The number of elements: a number, and how often each name is a factor. None if a dimension isn't known."""
    number, names = 1, Counter[str]()
    for dim in shape:
        if dim is None or dim == -1:
            return None
        if isinstance(dim, int):
            number *= dim
            continue
        for part in dim.split("*"):
            if part.isdigit():
                number *= int(part)
            else:
                names[part] += 1
    return number, names


def product(number: int, names: Counter[str]) -> Dim:
    """The dimension that is the product of `number` and `names`."""
    parts = sorted(names.elements())
    if not parts:
        return number
    return "*".join(parts if number == 1 else [str(number), *parts])


def broadcast(shapes: Sequence[Shape]) -> Shape:
    """The shape of an element-wise operator's result."""
    rank = max(map(len, shapes))
    result: list[Dim] = []
    for axis in range(rank):
        dims = [shape[axis - rank + len(shape)] for shape in shapes if axis - rank + len(shape) >= 0]
        large: set[Dim] = {dim for dim in dims if dim != 1}
        numbers = {dim for dim in large if isinstance(dim, int)}
        if not large:
            result.append(1)
        elif len(large) == 1:
            result.append(large.pop())
        else:
            # A number beside a name: whatever the name stands for, it is that number or 1.
            result.append(numbers.pop() if len(numbers) == 1 else None)
    return tuple(result)


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


def _attribute(node: Any, name: str, default: Any) -> Any:
    from onnx import helper

    return next((helper.get_attribute_value(entry) for entry in node.attribute if entry.name == name), default)


def _numbers(node: Any, number: int, known: Inference) -> tuple[Dim, ...] | None:
    return known.contents.get(node.input[number]) if len(node.input) > number else None


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
    return (left[_attribute(node, "transA", 0)], right[1 - _attribute(node, "transB", 0)])


def _transpose(node: Any, shape: Shape, known: Inference) -> Shape:  # noqa: ARG001
    order = _attribute(node, "perm", list(reversed(range(len(shape)))))
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
    axis = _attribute(node, "axis", 0) % len(shape)
    return (*shape[:axis], *indices, *shape[axis + 1 :])


def _gather_elements(node: Any, shape: Shape, known: Inference) -> Shape | None:  # noqa: ARG001
    return known.shapes.get(node.input[1])


def _gather_nd(node: Any, shape: Shape, known: Inference) -> Shape | None:
    indices = known.shapes.get(node.input[1])
    if indices is None or not isinstance(indices[-1], int):
        return None
    return (*indices[:-1], *shape[_attribute(node, "batch_dims", 0) + indices[-1] :])


def _concat(node: Any, shape: Shape, known: Inference) -> Shape | None:
    shapes = [known.shapes.get(name) for name in node.input]
    axis = _attribute(node, "axis", 0) % len(shape)
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
    pads, kernel = _attribute(node, "pads", []), _attribute(node, "kernel_shape", [])
    if weights is None or len(shape) != 3 or len(pads) != 2 or sum(pads) != kernel[0] - 1:
        return None
    plain = _attribute(node, "strides", [1]) == [1] and _attribute(node, "dilations", [1]) == [1]
    return (shape[0], weights[0], shape[2]) if plain else None


def _tile(node: Any, shape: Shape, known: Inference) -> Shape | None:
    times = _numbers(node, 1, known)
    return (
        None if times is None else tuple(_arithmetic("Mul", dim, many) for dim, many in zip(shape, times, strict=True))
    )


def _flatten(node: Any, shape: Shape, known: Inference) -> Shape:  # noqa: ARG001
    axis = _attribute(node, "axis", 1)
    sides = (factors(shape[:axis]), factors(shape[axis:]))
    return tuple(None if side is None else product(*side) for side in sides)


def _shape_of(node: Any, shape: Shape, known: Inference) -> Shape:  # noqa: ARG001
    return (len(range(len(shape))[slice(_attribute(node, "start", 0), _attribute(node, "end", None))]),)


def _reduce(node: Any, shape: Shape, known: Inference) -> Shape | None:
    axes: Sequence[Any] | None = _attribute(node, "axes", None) or _numbers(node, 1, known)
    if axes is None:
        return None
    gone = {axis % len(shape) for axis in axes}
    if _attribute(node, "keepdims", 1):
        return tuple(1 if axis in gone else dim for axis, dim in enumerate(shape))
    return tuple(dim for axis, dim in enumerate(shape) if axis not in gone)


def _arg(node: Any, shape: Shape, known: Inference) -> Shape:  # noqa: ARG001
    gone = _attribute(node, "axis", 0) % len(shape)
    if _attribute(node, "keepdims", 1):
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
    axis = _attribute(node, "axis", 0) % len(shape)
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


def _contents(node: Any, known: Inference) -> tuple[Dim, ...] | None:  # noqa: PLR0911, PLR0912
    """Elements of a small integer result."""
    operator = node.op_type
    if operator == "Shape":
        shape = known.shapes.get(node.input[0])
        if shape is None:
            return None
        return shape[slice(_attribute(node, "start", 0), _attribute(node, "end", None))]
    if operator == "ConstantOfShape":
        shape = known.shapes.get(node.output[0])
        if shape is None or len(shape) != 1 or not isinstance(shape[0], int) or shape[0] > _MOST_ELEMENTS:
            return None
        value = _attribute(node, "value", None)
        return (int(_array(value).reshape(-1)[0]),) * shape[0] if value and value.data_type in _INTEGERS else None
    parts = [known.contents.get(name) for name in node.input]
    if not parts or parts[0] is None:
        return None
    first = parts[0]
    if operator in {"Unsqueeze", "Squeeze", "Identity", "Reshape"}:
        return first
    if operator == "Cast":
        return first if _attribute(node, "to", 0) in _INTEGERS else None
    if operator == "Concat":
        return None if None in parts else tuple(element for part in parts if part is not None for element in part)
    second = parts[1] if len(parts) > 1 else None
    if second is None:
        return None
    if operator == "Gather":
        return tuple(first[index] if isinstance(index, int) else None for index in second)
    if operator == "Slice" and len(known.shapes.get(node.input[0], ())) == 1:
        end = parts[2]
        steps = parts[4] if len(parts) > 4 else (1,)
        if end and steps == (1,) and isinstance(second[0], int) and isinstance(end[0], int):
            return first[second[0] : end[0]]
        return None
    if operator in {"Mul", "Div", "Add", "Sub"}:
        return tuple(_arithmetic(operator, one, other) for one, other in zip(*_widened(first, second), strict=True))
    if operator == "Equal":
        return tuple(_equal(one, other) for one, other in zip(*_widened(first, second), strict=True))
    if operator == "Where" and len(parts) == 3 and parts[2] is not None:
        columns = zip(*_widened(first, second, parts[2]), strict=True)
        return tuple(None if test is None else yes if test else no for test, yes, no in columns)
    return None


def _widened(*columns: tuple[Dim, ...]) -> list[tuple[Dim, ...]]:
    """Scalars and vectors of one length, all at that length."""
    width = max(map(len, columns))
    return [column * width if len(column) == 1 else column for column in columns]


def _array(tensor: Any) -> npt.NDArray[Any]:
    from onnx import numpy_helper

    return np.asarray(numpy_helper.to_array(tensor))


def _equal(one: Dim, other: Dim) -> int | None:
    if one is None or other is None:
        return None
    if isinstance(one, int) and isinstance(other, int):
        return int(one == other)
    # An axis has at least one element, so it never equals -1, which is what an Expand's shape is compared with.
    return 0 if -1 in (one, other) else int(one == other) or None


def _arithmetic(operator: str, one: Dim, other: Dim) -> Dim:  # noqa: PLR0911
    if one is None or other is None:
        return None
    if isinstance(one, int) and isinstance(other, int):
        if operator == "Div":
            return one // other if other and one >= 0 and other > 0 else None
        return {"Mul": one * other, "Add": one + other, "Sub": one - other}[operator]
    if operator in {"Add", "Sub"}:
        if operator == "Sub" and one == other:
            return 0
        return one if other == 0 else None
    top, bottom = factors([one]), factors([other])
    if top is None or bottom is None:
        return None
    if operator == "Mul":
        return product(top[0] * bottom[0], top[1] + bottom[1])
    if bottom[1] - top[1] or bottom[0] == 0 or top[0] % bottom[0]:
        return None
    return product(top[0] // bottom[0], top[1] - bottom[1])
