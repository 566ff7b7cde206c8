"""Elements of the small integer tensors that a graph computes shapes with, as far as they are known.

`Shape` of a `("batch", "sequence", 32)` is a vector of just that; what Gather, Concat and the like make of it is
followed element by element. Only scalars and vectors are: their order says where an element is.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from export.rewrites.attributes import attribute_of
from export.rewrites.dimensions import Dim, Shape, arithmetic

_MOST_ELEMENTS = 64
"""Integer tensors up to this size are followed element by element: they are shapes."""

_INTEGERS = {6, 7}
"""int32 and int64 in ONNX's numbering."""


def constant_elements(value: npt.NDArray[Any]) -> tuple[Dim, ...] | None:
    """Elements of a constant, if it is such a tensor."""
    if value.ndim > 1 or value.size > _MOST_ELEMENTS or value.dtype not in (np.int64, np.int32, np.bool_):
        return None
    return tuple(int(element) for element in value.reshape(-1))


def result_elements(  # noqa: PLR0911, PLR0912
    node: Any, shapes: dict[str, Shape], elements: dict[str, tuple[Dim, ...]]
) -> tuple[Dim, ...] | None:
    """Elements of the result of `node`, if it is a scalar or a vector of integers that follow from shapes."""
    if len(shapes.get(node.output[0], (None, None))) > 1:
        return None
    operator = node.op_type
    if operator == "Shape":
        shape = shapes.get(node.input[0])
        if shape is None:
            return None
        return shape[slice(attribute_of(node, "start", 0), attribute_of(node, "end", None))]
    if operator == "ConstantOfShape":
        shape = shapes.get(node.output[0])
        if shape is None or len(shape) != 1 or not isinstance(shape[0], int) or shape[0] > _MOST_ELEMENTS:
            return None
        value = attribute_of(node, "value", None)
        return (int(_array(value).reshape(-1)[0]),) * shape[0] if value and value.data_type in _INTEGERS else None
    parts = [elements.get(name) for name in node.input]
    if not parts or parts[0] is None:
        return None
    first = parts[0]
    if operator in {"Unsqueeze", "Squeeze", "Identity", "Reshape"}:
        return first
    if operator == "Cast":
        return first if attribute_of(node, "to", 0) in _INTEGERS else None
    if operator == "Concat":
        return None if None in parts else tuple(element for part in parts if part is not None for element in part)
    second = parts[1] if len(parts) > 1 else None
    if second is None:
        return None
    if operator == "Gather":
        here = range(-len(first), len(first))
        return tuple(first[index] if isinstance(index, int) and index in here else None for index in second)
    if operator == "Slice":
        end = parts[2]
        steps = parts[4] if len(parts) > 4 else (1,)
        if end and steps == (1,) and isinstance(second[0], int) and isinstance(end[0], int):
            return first[second[0] : end[0]]
        return None
    if operator in {"Mul", "Div", "Add", "Sub"}:
        return tuple(arithmetic(operator, one, other) for one, other in zip(*_widened(first, second), strict=True))
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
