"""The machine's limit and how near a variant comes to it.

The limit is measured, not read off a data sheet: the fastest matrix product that any of the installed engines reaches
in int8, bf16 and fp32, at sizes like a transformer's. No engine is best at all three; on one EPYC core (AVX-512 VNNI)
in G operations/s: int8 OpenVINO 950, PyTorch (oneDNN) 980, ONNX Runtime 860; bf16 510, 475, none; fp32 265, 110 (MKL),
265. So "× PyTorch fp32" is half MKL's weakness on that processor. On one without VNNI (AVX2) ONNX Runtime's int8 is
1.3 times OpenVINO's, and held against OpenVINO's alone a model had 111 % of the limit.

A variant's operations are two for each multiply-add of its matrix products, those of activations with each other
included, at the shapes that a run really has. Each product is held against the peak of the precision that the file has
it in: an int8 model's attention between tokens is fp32, a mixed model's harmful layers are, and weights in 4 bits whose
products are computed in fp32 have the peak of fp32. So a share is the time that all products would take at their peaks,
of the time that the run takes. (One peak for all of a file's products would hold fp32 against int8.) Everything else
(softmax, normalization, quantization) is no work by this count, only time: the share reached is what it and imperfect
products leave; `export.measurement.breakdown` says which.

Source: Williams, Waterman, Patterson, "Roofline", CACM 52(4), 2009. Its slope for memory is left out: the weights of
an encoder that this is about (5 to 25 MB) are read once for thousands of operations a byte, except at 1 × 32 tokens.
"""

import functools
import math
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from export.measurement import Shape
from export.measurement.breakdown import node_events
from slipway.bundle import Target
from slipway.engines import onnxruntime as onnxruntime_engine
from slipway.engines import openvino as openvino_engine

_SIZES = ((1024, 1024, 1024), (1024, 384, 1536))
"""Rows × inner × columns."""
_CHAIN = 4
_SECONDS_EACH = 0.2
_SHORT_LOOK = 16
"""A sixteenth of a product's rows are looked at before all of them are timed."""
_NOWHERE_NEAR = 8
"""Times slower: few rows are not multiplied at the pace of many."""
_PRODUCTS = {
    "MatMul", "Gemm", "FusedMatMul", "FusedGemm", "MatMulInteger", "MatMulIntegerToFloat", "DynamicQuantizeMatMul",
    "QLinearMatMul", "QGemm", "MatMulNBits",
}  # fmt: skip
_INTEGER = {"MatMulInteger", "MatMulIntegerToFloat", "DynamicQuantizeMatMul", "QLinearMatMul", "QGemm"}
_MOVES = {"Transpose", "Reshape", "Identity", "Squeeze", "Unsqueeze"}
_KERNEL_TIME = "_kernel_time"

Operations = dict[str, int]
"""Of one sequence, by the precision that they are in: `int8`, `fp32`, `fp16`, `bf16`."""


@dataclass(frozen=True)
class Peaks:
    """The fastest matrix products, in G operations/s (10⁹, two for a multiply-add)."""

    int8: float
    bf16: float
    fp32: float
    threads: int

    def of(self, precision: str) -> float:
        """The peak of a target's `precision`; fp16 has none on CPUs and is held against bf16."""
        return {"int8": self.int8, "fp32": self.fp32, "bf16": self.bf16, "fp16": self.bf16}[precision]


@functools.cache
def peaks(threads: int = 1) -> Peaks:
    """Measure the peaks with `threads` threads: six to nine seconds, once in a process."""
    with _torch_threads(threads):
        int8, bf16, fp32 = (_openvino(precision, threads) for precision in ("int8", "bf16", "fp32"))
        int8, fp32 = max(int8, _onnxruntime("int8", threads)), max(fp32, _onnxruntime("fp32", threads))
        return Peaks(
            int8=max(int8, _torch("int8", known=int8)),
            bf16=max(bf16, _torch("bf16", known=bf16)),
            fp32=max(fp32, _torch("fp32", known=fp32)),
            threads=threads,
        )


def share(operations: Operations, sequences_per_s: float, peaks: Peaks) -> float:
    """Share of the machine's limit that so many sequences of these operations each reach."""
    return sequences_per_s * sum(count / (peaks.of(precision) * 1e9) for precision, count in operations.items())


def operations(model: Path, shape: Shape, hint: Literal["f32", "bf16"] = "f32") -> Operations:
    """Operations of the matrix products for one sequence of the shape's tokens.

    Shapes are those of a real run with ONNX Runtime, so nothing has to be inferred through a graph's own arithmetic.
    `hint` is the target's: in what the engine computes what the file has in fp32. Raises `ExportError` if ONNX Runtime
    can't run the file.
    """
    import onnxruntime

    # One row would do, but for products whose second factor is not per row.
    ids = np.ones((shape.batch, shape.tokens), dtype=np.int64)
    batch = {"input_ids": ids, "attention_mask": ids, "token_type_ids": np.zeros_like(ids)}
    with tempfile.TemporaryDirectory(prefix="slipway-profile-") as folder:
        prefix = Path(folder) / "nodes"
        options = onnxruntime_engine.session_options(1)
        options.enable_profiling = True
        options.profile_file_prefix = str(prefix)
        # As written: what the engine makes of it is the engine's business, and the same for all of them.
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        session = onnxruntime_engine.create(model, Target(model=model.name, precision="fp32"), options)
        events = node_events(session, batch, 1, prefix)
    rounded = _rounded_products(model)
    found = Counter[str]()
    for event in events:
        if event.get("cat") != "Node" or event["args"].get("op_name") not in _PRODUCTS:
            continue
        integer = event["name"].removesuffix(_KERNEL_TIME) in rounded
        found["int8" if integer else _floating(event["args"], hint)] += _product_operations(event["args"])
    return {precision: round(total / shape.batch) for precision, total in found.items()}


def _rounded_products(model: Path) -> set[str]:
    """Names of the products that are computed on integers: both factors are, when they come."""
    import onnx

    proto = onnx.load(str(model))
    producers = {output: node for node in proto.graph.node for output in node.output}

    def is_dequantized(name: str) -> bool:
        node = producers.get(name)
        while node is not None and node.op_type in _MOVES:
            node = producers.get(node.input[0])
        return node is not None and node.op_type == "DequantizeLinear"

    def is_integer(node: Any) -> bool:
        if node.op_type == "MatMulNBits":  # 4: the kernel rounds activations to int8, too
            return any(one.name == "accuracy_level" and one.i == 4 for one in node.attribute)
        return node.op_type in _INTEGER or all(is_dequantized(name) for name in node.input[:2])

    return {node.name for node in proto.graph.node if node.op_type in _PRODUCTS and is_integer(node)}


def _floating(node: dict[str, Any], hint: Literal["f32", "bf16"]) -> str:
    (kind,) = node["output_type_shape"][0]
    if kind in ("float16", "bfloat16"):
        return "fp16" if kind == "float16" else "bf16"
    return "bf16" if hint == "bf16" else "fp32"


def _product_operations(node: dict[str, Any]) -> int:
    left, out = (next(iter(node[key][0].values())) for key in ("input_type_shape", "output_type_shape"))
    # From the size, not the last axis, as the left factor may be transposed.
    inner = math.prod(left[-2:]) // (out[-2] if len(left) > 1 and len(out) > 1 else 1)
    return 2 * int(math.prod(out)) * int(inner)


def _openvino(precision: str, threads: int) -> float:
    best = 0.0
    for size in _SIZES:
        hint = "bf16" if precision == "bf16" else "f32"
        target = Target(model="", precision="fp32", engine="openvino", precision_hint=hint)
        with _model(size, quantized=precision == "int8") as file:
            request = openvino_engine.compile_model(file, target, threads).create_infer_request()
        best = max(best, _speed(functools.partial(request.infer, [_rows(size)], share_inputs=True), size))
    return best


def _onnxruntime(precision: str, threads: int) -> float:
    best = 0.0
    for size in _SIZES:
        with _model(size, quantized=precision == "int8") as file:
            options = onnxruntime_engine.session_options(threads)
            session = onnxruntime_engine.create(file, Target(model="", precision="fp32"), options)
        best = max(best, _speed(functools.partial(session.run, None, {"rows": _rows(size)}), size))
    return best


def _torch(precision: str, known: float) -> float:
    """G operations/s of PyTorch's own product; 0 if a short look says that it is nowhere near the `known` ones.

    Without instructions for a precision PyTorch multiplies it element by element, and takes seconds for a product.
    """
    import torch

    best = 0.0
    kinds = {"int8": torch.int8, "bf16": torch.bfloat16, "fp32": torch.float32}
    multiply = torch._int_mm if precision == "int8" else torch.mm
    for rows, inner, columns in _SIZES:
        left = torch.randint(-127, 127, (rows, inner)).to(kinds[precision])
        right = torch.randint(-127, 127, (inner, columns)).to(kinds[precision])
        few = rows // _SHORT_LOOK
        multiply(left[:few], right)
        started = time.perf_counter()
        multiply(left[:few], right)
        looked = 2 * few * inner * columns / (time.perf_counter() - started) / 1e9
        if looked > known / _NOWHERE_NEAR:
            best = max(best, _speed(functools.partial(multiply, left, right), (rows, inner, columns), chain=1))
    return best


def _speed(run: Callable[[], Any], size: tuple[int, int, int], *, chain: int = _CHAIN) -> float:
    """G operations/s of the median run, over about a fifth of a second."""
    run()
    taken: list[float] = []
    end = time.perf_counter() + _SECONDS_EACH
    while time.perf_counter() < end or len(taken) < 3:
        started = time.perf_counter()
        run()
        taken.append(time.perf_counter() - started)
    return 2 * math.prod(size) * chain / statistics.median(taken) / 1e9


def _rows(size: tuple[int, int, int]) -> Any:
    return np.random.default_rng(0).standard_normal(size[:2]).astype(np.float32)


@contextmanager
def _model(size: tuple[int, int, int], *, quantized: bool) -> Iterator[Path]:
    """An ONNX file of a chain of products, inner → columns → inner …, as a transformer's feed-forward layers are.

    In a chain, activations stay quantized from product to product, and what surrounds a single product in an engine
    (reading fp32, writing it) does not hide how fast the products are.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    rows, inner, columns = size
    generator = np.random.default_rng(0)
    scale, zero = np.float32(0.02), np.uint8(128)
    constants = {"scale": scale, "zero": zero, "weight_scale": np.float32(0.001)} if quantized else {}
    nodes, last = [], "rows"
    for step in range(_CHAIN):
        shape = (inner, columns) if step % 2 == 0 else (columns, inner)
        if quantized:
            constants[f"w{step}"] = generator.integers(-127, 127, shape).astype(np.int8)
            nodes += [
                helper.make_node("QuantizeLinear", [last, "scale", "zero"], [f"q{step}"]),
                helper.make_node("DequantizeLinear", [f"q{step}", "scale", "zero"], [f"a{step}"]),
                helper.make_node("DequantizeLinear", [f"w{step}", "weight_scale"], [f"b{step}"]),
            ]
            nodes.append(helper.make_node("MatMul", [f"a{step}", f"b{step}"], [f"y{step}"]))
        else:
            constants[f"w{step}"] = (generator.standard_normal(shape) / math.sqrt(shape[0])).astype(np.float32)
            nodes.append(helper.make_node("MatMul", [last, f"w{step}"], [f"y{step}"]))
        last = f"y{step}"
    kind = TensorProto.UINT8 if quantized else TensorProto.FLOAT
    last_node = ("QuantizeLinear", [last, "scale", "zero"]) if quantized else ("Identity", [last])
    nodes.append(helper.make_node(*last_node, ["out"]))
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("rows", TensorProto.FLOAT, [rows, inner])],
        [helper.make_tensor_value_info("out", kind, [rows, inner])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    with tempfile.TemporaryDirectory(prefix="slipway-peak-") as folder:
        file = Path(folder) / "chain.onnx"
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), file)
        yield file


@contextmanager
def _torch_threads(threads: int) -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
