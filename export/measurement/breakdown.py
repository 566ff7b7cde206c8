"""Where the time of a run goes: products, attention, softmax, normalization, … and dispatch.

Both engines time their own nodes; the kinds below join what the two call differently. Products are those with weights.
What an engine fuses can't be taken apart: bias, GELU and quantization that ride on a product count as product, and
OpenVINO's attention (two products and a softmax in one kernel) is one kind. `dispatch` is what the run took beyond its
nodes: crossing into the engine, planning, handing inputs over. Measuring costs a few percent of the run, mostly there.
"""

import json
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from slipway.bundle import EngineName, Target
from slipway.engines import onnxruntime as onnxruntime_engine
from slipway.engines import openvino as openvino_engine
from slipway.errors import ExportError

Batch = Mapping[str, npt.NDArray[np.int64]]
Times = dict[str, float]
"""Seconds of one run by kind."""

_WARM_UP = 3

_KINDS = {
    "products": "MatMul Gemm FusedMatMul FusedGemm MatMulInteger MatMulIntegerToFloat DynamicQuantizeMatMul "
    "QLinearMatMul QGemm MatMulNBits FullyConnected FullyConnectedQuantizedLegacy FullyConnectedCompressed",
    "attention": "Attention QAttention MultiHeadAttention ScaledDotProductAttention MHA",
    "softmax": "Softmax",
    "normalization": "LayerNormalization SkipLayerNormalization SimplifiedLayerNormalization EmbedLayerNormalization "
    "MVN RMS",
    "quantization": "QuantizeLinear DequantizeLinear DynamicQuantizeLinear FakeQuantize",
    "embeddings": "Gather GatherElements GatherND",
    "layout": "Transpose Reshape Reorder Concat Slice Split Unsqueeze Squeeze Shape ShapeOf Expand Broadcast "
    "ConstantOfShape Flatten",
}
"""Everything else is elementwise."""

_KIND = {name: kind for kind, names in _KINDS.items() for name in names.split()}


def breakdown(model: Path, target: Target, batch: Batch, *, runs: int = 20) -> dict[str, float]:
    """`{kind: share}` of a run of `batch` (int64 `[batch, tokens]` each) with the target's engine and threads.

    Shares are of the median over `runs` runs and sum to 1, the largest first. Raises `ExportError` if the engine can't
    run the file.
    """
    profiled = _PROFILERS[target.engine](model, target, batch, _WARM_UP + runs)[_WARM_UP:]
    kinds = sorted({kind for times in profiled for kind in times})
    medians = {kind: statistics.median(times.get(kind, 0.0) for times in profiled) for kind in kinds}
    total = sum(medians.values())
    return {kind: medians[kind] / total for kind in sorted(kinds, key=lambda kind: -medians[kind])}


def node_events(session: Any, batch: Batch, runs: int, prefix: Path) -> list[dict[str, Any]]:
    """Events of an ONNX Runtime session that was opened with profiling to `prefix`, while it runs `batch`."""
    names = {value.name for value in session.get_inputs()}
    for _ in range(runs):
        session.run(["logits"], {name: value for name, value in batch.items() if name in names})
    file = Path(session.end_profiling())
    assert file.name.startswith(prefix.name), file  # noqa: S101
    try:
        events: list[dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ExportError(f"{file} was not written whole by ONNX Runtime; is there room in {file.parent}?") from error
    return events


def _onnxruntime(model: Path, target: Target, batch: Batch, runs: int) -> list[Times]:
    with tempfile.TemporaryDirectory(prefix="slipway-profile-") as folder:
        prefix = Path(folder) / "nodes"
        options = onnxruntime_engine.session_options(target.threads)
        options.enable_profiling = True
        options.profile_file_prefix = str(prefix)
        events = node_events(onnxruntime_engine.create(model, target, options), batch, runs, prefix)
    nodes = [
        event for event in events if event.get("cat") == "Node" and event["name"].endswith(("_kernel_time", "_node"))
    ]
    profiled = []
    for run in (event for event in events if event["name"] == "model_run"):
        times = Counter[str]()
        for node in nodes:
            if run["ts"] <= node["ts"] < run["ts"] + run["dur"]:
                times[_onnx_kind(node["args"])] += node["dur"] / 1e6
        profiled.append(_with_dispatch(times, run["dur"] / 1e6))
    return profiled


def _onnx_kind(node: dict[str, Any]) -> str:
    """The node's kind; a product whose second factor is an activation is attention's.

    The profile lists activations only: a product with a weight has one input of the size that it multiplies.
    """
    kind = _KIND.get(node["op_name"], "elementwise")
    if kind == "products" and node["op_name"] in ("MatMul", "FusedMatMul"):
        ranks = [len(next(iter(shape.values()))) for shape in node["input_type_shape"]]
        if len(ranks) > 1 and min(ranks[:2]) > 2:
            return "attention"
    return kind


def _openvino(model: Path, target: Target, batch: Batch, runs: int) -> list[Times]:
    compiled = openvino_engine.compile_model(model, target, target.threads, PERF_COUNT=True)
    request = compiled.create_infer_request()
    inputs = [batch[value.any_name] for value in compiled.inputs]
    kinds = {node.get_friendly_name(): _openvino_kind(node) for node in compiled.get_runtime_model().get_ops()}
    profiled = []
    for _ in range(runs):
        started = time.perf_counter()
        request.infer(inputs, share_inputs=True, share_outputs=True)
        taken = time.perf_counter() - started
        times = Counter[str]()
        for node in request.get_profiling_info():
            times[kinds.get(node.node_name, "elementwise")] += node.real_time.total_seconds()
        profiled.append(_with_dispatch(times, taken))
    return profiled


def _openvino_kind(node: Any) -> str:
    """The kind of a node of the graph that runs; a product in a fused subgraph or of two activations is attention."""
    info = node.get_rt_info()
    layer = _text(info, "layerType") or node.get_type_name()
    if layer == "Subgraph":
        return "attention" if "MatMul" in _text(info, "originalLayersNames") else "elementwise"
    if layer == "MatMul":
        return "attention"
    return _KIND.get(layer, "elementwise")


def _text(info: Any, key: str) -> str:
    return str(info[key].astype(str)) if key in info else ""


def _with_dispatch(times: Mapping[str, float], taken: float) -> Times:
    return {**times, "dispatch": max(0.0, taken - sum(times.values()))}


_PROFILERS: dict[EngineName, Callable[[Path, Target, Batch, int], list[Times]]] = {
    "onnxruntime": _onnxruntime,
    "openvino": _openvino,
}
