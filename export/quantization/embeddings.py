"""Embeddings in 8 or 4 bits: they are half of a small model's bytes, and only the rows that are looked up are used.

A table `[rows, width]` is stored as integers with a scale per row (8 bits) or per 64 columns of a row (4 bits, two in
a byte), the rows are looked up as integers and only those become fp32. The obvious form, DequantizeLinear of the
whole table and then Gather, is folded back into an fp32 table by both engines when they load the file: small on disk,
large in memory. Looking up first can't be folded, since it depends on the text. Half bytes are split by a division
and `Floor` in fp32 rather than by bit operators, which are newer than some opsets and slower in ONNX Runtime.

Prices on MiniLM's 30,522 × 384: 8 bits leave 11.7 MB of 46.9 and lose nothing that was measurable; 4 bits leave 6.6
MB, and agreement with fp32 falls from 99.6 % to 98.8 % (divergence 0.0004 to 0.0012, 500 texts), at 96 % of the speed
on ONNX Runtime and 99 % on OpenVINO (32×32, one thread). Tables that are sliced instead of looked up, and those of
fewer than 2048 rows (positions), have 8 bits in either case: every text reads a position.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from export.quantization.products import FloatArray, drop_unused, load_graph, ranks_of, replace_nodes, weights_of

Bits = Literal[4, 8]

SMALLEST = 16
"""Rows below which a table is left alone: token types have two."""

_SHARES = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7, *(7.5 / level for level in (8, 7, 6, 5)))
"""Of the peak, that the grid of 4 bits may end at. The latter find the very grid of a table that is rounded already."""

LARGE = 2048
"""Rows from which a table may have 4 bits."""

GROUP = 64
"""Columns that share a scale in 4 bits."""


def quantize_tables(model: Path, out: Path, bits: Bits) -> Path:
    """Write `model`, fp32 or already quantized, with its embeddings in `bits` bits to `out`."""
    import onnx

    proto = load_graph(model)
    compress_tables(proto, bits)
    onnx.save(proto, str(out))
    return out


def compress_tables(proto: Any, bits: Bits) -> int:
    """Compress the fp32 embedding tables of `proto` in place; returns how many lookups were changed."""
    from onnx import numpy_helper

    weights = weights_of(proto)
    readers: dict[str, list[Any]] = {}
    for node in proto.graph.node:
        for name in node.input:
            if name in weights:
                readers.setdefault(name, []).append(node)
    lookups = {name: nodes for name, nodes in readers.items() if _is_table(weights, name, nodes)}
    ranks = ranks_of(proto)
    nodes: list[Any] = []
    stored: set[str] = set()
    for node in proto.graph.node:
        name = next((name for name in node.input[:1] if name in lookups), None)
        if name is None:
            nodes.append(node)
            continue
        table = numpy_helper.to_array(weights[name])
        four = bits == 4 and _may_have_4(node, table, ranks)
        width = 4 if four else 8
        if (key := f"{name}:{width}") not in stored:
            stored.add(key)
            integers, scales = _pack4(table) if four else _round8(table)
            proto.graph.initializer.append(numpy_helper.from_array(integers, key))
            proto.graph.initializer.append(numpy_helper.from_array(scales, f"{key}:scale"))
        nodes += _lookup4(proto, node, key, ranks[node.input[1]]) if four else _lookup8(node, key)
    replace_nodes(proto, nodes)
    drop_unused(proto)
    return sum(len(nodes) for nodes in lookups.values())


def _is_table(weights: Mapping[str, Any], name: str, nodes: list[Any]) -> bool:
    tensor = weights[name]
    if (
        tensor.data_type != 1
        or len(tensor.dims) < 2
        or int(np.prod(tensor.dims[:-1])) < SMALLEST
        or tensor.dims[-1] < 8
    ):
        return False
    return all(node.input[0] == name and _reads_rows(node, len(tensor.dims), weights) for node in nodes)


def _reads_rows(node: Any, rank: int, weights: Mapping[str, Any]) -> bool:
    from onnx import numpy_helper

    if node.op_type == "Gather":
        axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 0)
        return rank == 2 and axis == 0
    if node.op_type == "Slice" and len(node.input) > 3 and node.input[3] in weights:
        return all(axis % rank < rank - 1 for axis in numpy_helper.to_array(weights[node.input[3]]))
    return False


def _may_have_4(node: Any, table: FloatArray, ranks: Mapping[str, int]) -> bool:
    return node.op_type == "Gather" and len(table) >= LARGE and table.shape[1] % 2 == 0 and node.input[1] in ranks


def _round8(table: FloatArray) -> tuple[npt.NDArray[np.int8], FloatArray]:
    peak = np.abs(table).max(-1, keepdims=True)
    scale = np.where(peak == 0, 1, peak / 127).astype(np.float32)
    return np.clip(np.rint(table / scale), -127, 127).astype(np.int8), scale


def rounded4(table: FloatArray) -> FloatArray:
    """`table` `[rows, width]` as it comes out of 4 bits; rounding that again changes nothing.

    A model that learns with its table rounded from the start gets used to it, at no price.
    """
    packed, scale = _pack4(table)
    levels = np.concatenate([packed & 15, packed >> 4], axis=-1).astype(np.float32) - 8
    rounded: FloatArray = (levels * scale).reshape(table.shape).astype(np.float32)
    return rounded


def _pack4(table: FloatArray) -> tuple[npt.NDArray[np.uint8], FloatArray]:
    """Bytes `[rows, groups, columns / 2]` and scales `[rows, groups, 1]`; low halves are a group's first columns."""
    rows, width = table.shape
    columns = GROUP if width % GROUP == 0 else width
    grouped = table.reshape(rows, width // columns, columns)
    scale = _best_scale4(grouped)
    levels = (np.clip(np.rint(grouped / scale), -8, 7) + 8).astype(np.uint8)
    packed: npt.NDArray[np.uint8] = levels[..., : columns // 2] | (levels[..., columns // 2 :] << 4)
    return packed, scale


def _best_scale4(grouped: FloatArray) -> FloatArray:
    """Of some shares of the peak, the scale of least squared error: with 16 levels, clipping the peak pays."""
    peak = np.abs(grouped).max(-1, keepdims=True)
    best: FloatArray = np.ones_like(peak)
    least = np.full_like(peak, np.inf)
    for share in _SHARES:
        scale = np.where(peak == 0, 1, peak * share / 7.5).astype(np.float32)
        error = np.square(grouped - scale * np.clip(np.rint(grouped / scale), -8, 7)).sum(-1, keepdims=True)
        best, least = np.where(error < least, scale, best), np.minimum(error, least)
    return best


def _lookup8(node: Any, key: str) -> list[Any]:
    from onnx import TensorProto, helper

    integers, scales = _same_lookup(node, key), _same_lookup(node, f"{key}:scale")
    output = node.output[0]
    return [
        integers,
        scales,
        helper.make_node("Cast", integers.output, [f"{output}:float"], name=f"{output}:float", to=TensorProto.FLOAT),
        helper.make_node("Mul", [f"{output}:float", scales.output[0]], [output], name=node.name),
    ]


def _same_lookup(node: Any, table: str) -> Any:
    copy = type(node).FromString(node.SerializeToString())
    copy.input[0] = table
    copy.output[0] = copy.name = f"{node.output[0]}:{table}"
    return copy


def _lookup4(proto: Any, node: Any, key: str, rank: int) -> list[Any]:
    from onnx import TensorProto, helper, numpy_helper

    output = node.output[0]
    constants = {
        f"{output}:sixteen": np.float32(16),
        f"{output}:eight": np.float32(8),
        f"{output}:shape": np.array([0] * rank + [-1], dtype=np.int64),
    }
    proto.graph.initializer.extend(
        numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()
    )
    sixteen, eight, shape = constants
    bytes_, scales = _same_lookup(node, key), _same_lookup(node, f"{key}:scale")

    def step(operator: str, inputs: list[str], result: str, **attributes: Any) -> Any:
        return helper.make_node(operator, inputs, [f"{output}:{result}"], name=f"{output}:{result}", **attributes)

    last = helper.make_node("Reshape", [f"{output}:scaled", shape], [output], name=node.name)
    return [
        bytes_,
        scales,
        step("Cast", [bytes_.output[0]], "bytes", to=TensorProto.FLOAT),
        step("Div", [f"{output}:bytes", sixteen], "shifted"),
        step("Floor", [f"{output}:shifted"], "high"),
        step("Mul", [f"{output}:high", sixteen], "masked"),
        step("Sub", [f"{output}:bytes", f"{output}:masked"], "low"),
        step("Concat", [f"{output}:low", f"{output}:high"], "levels", axis=-1),
        step("Sub", [f"{output}:levels", eight], "centred"),
        step("Mul", [f"{output}:centred", scales.output[0]], "scaled"),
        last,
    ]
