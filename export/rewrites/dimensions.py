"""Arithmetic with dimensions, of which some are names: `batch` times 4 is `4*batch`.

A dimension is a number, a name, a product of these, or None where it isn't known. Nothing is ever guessed.
"""

from collections import Counter
from collections.abc import Sequence

Dim = int | str | None
Shape = tuple[Dim, ...]


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


def arithmetic(operator: str, one: Dim, other: Dim) -> Dim:  # noqa: PLR0911
    """The result of the integer operator Add, Sub, Mul or Div."""
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
