"""A bundle beside what else one would reach for, on the same checkpoint, in one run.

    python benchmarks/export/peers.py CHECKPOINT BUNDLE [--threads 1] [--seconds 120] [--only NAME …]

Compared, each as its makers' own path has it: eager PyTorch, torch.compile, ONNX Runtime on the plain fp32 graph,
optimum's O2 and O3 graph optimization, the latter with dynamic int8 on top, OpenVINO's fp32, OpenVINO with NNCF's stock
int8 (300 training texts), and the bundle's model on the bundle's engine. All take turns (`export.measurement.speeds`).
Printed: sequences/s and the ratios to PyTorch, to ONNX Runtime fp32 and to stock OpenVINO int8; size; and, on the test
split that no search has looked at, the metrics and their paired loss against the dense checkpoint with 95 % intervals.

optimum's O4 is O3 in fp16 and so for GPUs; on a CPU O3 is its most.
"""

import argparse
import contextlib
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from export.evaluation.significance import compare
from export.graph import export_onnx, quietly
from export.measurement import Corpus, Shape, speeds, torch_model
from export.quantization.calibration_texts import CALIBRATION_TEXTS, sample
from export.source import Source
from slipway.bundle import TOKENIZER, Bundle, Target
from slipway.engines import open_session
from slipway.predictor import Encoder, Predictor
from slipway.pruned import load_classifier
from slipway.tasks import get_task

SHAPES = [Shape(1, 32), Shape(8, 32), Shape(32, 32), Shape(8, 128)]


@dataclass(frozen=True)
class Peer:
    """What runs a batch, its file (None for PyTorch) and how it answers texts."""

    run: Callable[[Any], Any]
    size: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--only", nargs="*")
    arguments = parser.parse_args()
    source, bundle = Source.open(arguments.checkpoint), Bundle.open(arguments.bundle)
    with tempfile.TemporaryDirectory() as work, contextlib.ExitStack() as stack:
        peers = make(source, bundle, arguments.threads, Path(work), stack, arguments.only)
        dense = Encoder(source.path / TOKENIZER, bundle.spec.tokenization.model_copy(update={"inputs": INPUTS}))
        own = Encoder(bundle.path / TOKENIZER, bundle.spec.tokenization)
        corpora = {name: Corpus(own if name == "bundle" else dense, source.dev.texts) for name in peers}
        runs = {name: peer.run for name, peer in peers.items()}
        found = speeds(runs, SHAPES, corpora, budget_s=arguments.seconds)
    print_speeds(found, peers, arguments.threads)
    print_accuracy(source, bundle)


INPUTS = ["input_ids", "attention_mask"]


def make(
    source: Source, bundle: Bundle, threads: int, work: Path, stack: contextlib.ExitStack, only: list[str] | None
) -> dict[str, Peer]:
    import torch

    model = load_classifier(source.path)
    weights = sum(file.stat().st_size for file in source.path.glob("*.safetensors"))
    eager = stack.enter_context(torch_model(model, threads))
    plain = export_onnx(model, source.task, work / "plain.onnx")
    texts = sample(source.train.texts, CALIBRATION_TEXTS, 0)
    tokenization = bundle.spec.tokenization.model_copy(update={"inputs": _inputs(plain)})
    encode = Encoder(source.path / TOKENIZER, tokenization)

    def compiled() -> Peer:
        run = torch.compile(model, dynamic=False)

        def call(batch: Any) -> Any:
            with torch.inference_mode():
                return run(**{name: torch.from_numpy(value) for name, value in batch.items()}).logits

        return Peer(call, weights)

    def onnx(file: Path, engine: str) -> Peer:
        target = Target(model=file.name, precision="fp32", engine=engine, threads=threads)  # type: ignore[arg-type]
        session = open_session(file, target)
        zeros = [name for name in session.inputs if name not in INPUTS]

        def call(batch: Any) -> Any:
            return session.run({**batch, **{name: np.zeros_like(batch["input_ids"]) for name in zeros}})

        return Peer(call, file.stat().st_size)

    makers: dict[str, Callable[[], Peer]] = {
        "eager": lambda: Peer(eager, weights),
        "torch.compile": compiled,
        "ort fp32": lambda: onnx(plain, "onnxruntime"),
        "optimum O2": lambda: onnx(optimum(plain, work, source, 2), "onnxruntime"),
        "optimum O3 + int8": lambda: onnx(dynamic(optimum(plain, work, source, 3), work), "onnxruntime"),
        "ov fp32": lambda: onnx(plain, "openvino"),
        "ov int8 stock": lambda: stock_openvino(plain, [encode([text]) for text in texts], threads),
        "bundle": lambda: _bundle(bundle, threads),
    }
    found = {}
    for name, maker in makers.items():
        if only and name not in only and name not in ("eager", "bundle"):
            continue
        try:
            found[name] = maker()
        except Exception as error:  # a peer that can't do it is a row of its own
            print(f"{name} is left out: {str(error).splitlines()[0]}")
    return found


def _inputs(model: Path) -> list[Any]:
    from export.graph import input_names

    return input_names(model)


def optimum(plain: Path, work: Path, source: Source, level: int) -> Path:
    """optimum's ORTOptimizer at O2 or O3."""
    from onnxruntime.transformers import optimizer

    config = source.checkpoint.json("config.json")
    out = work / f"o{level}.onnx"
    with quietly():
        options = optimizer.FusionOptions("bert")
        options.enable_gelu_approximation = level == 3
        optimized = optimizer.optimize_model(
            str(plain),
            model_type="bert",
            num_heads=config["num_attention_heads"],
            hidden_size=config["hidden_size"],
            optimization_options=options,
            opt_level=1,
        )
        optimized.save_model_to_file(str(out))
    return out


def dynamic(model: Path, work: Path) -> Path:
    """What `optimum-cli onnxruntime quantize --avx512_vnni` does: dynamic, per channel, int8 weights."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    out = work / "dynamic.onnx"
    with quietly():
        quantize_dynamic(
            str(model), str(out), per_channel=True, weight_type=QuantType.QInt8, extra_options={"DefaultTensorType": 1}
        )
    return out


def stock_openvino(plain: Path, calibration: list[Any], threads: int) -> Peer:
    """OpenVINO's own path: its model of the graph, quantized by NNCF for transformers, saved as IR."""
    import nncf
    import openvino

    with quietly():
        core = openvino.Core()
        model = core.read_model(str(plain))
        quantized = nncf.quantize(model, nncf.Dataset(calibration), model_type=nncf.ModelType.TRANSFORMER)
    with tempfile.TemporaryDirectory() as folder:
        openvino.save_model(quantized, f"{folder}/model.xml")
        size = sum(file.stat().st_size for file in Path(folder).iterdir())
    compiled = core.compile_model(
        quantized,
        "CPU",
        {
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
            "ENABLE_CPU_PINNING": False,
        },
    )
    request = compiled.create_infer_request()
    names = [value.any_name for value in compiled.inputs]

    def call(batch: Any) -> Any:
        for number, name in enumerate(names):
            array = batch.get(name)
            array = np.zeros_like(batch["input_ids"]) if array is None else np.ascontiguousarray(array)
            request.set_input_tensor(number, openvino.Tensor(array, shared_memory=True))
        request.infer(share_outputs=True)
        return np.array(request.get_output_tensor(0).data)

    return Peer(call, size)


def _bundle(bundle: Bundle, threads: int) -> Peer:
    target = bundle.target("cpu")
    file = bundle.path / target.model
    return Peer(open_session(file, target, threads=threads).run, file.stat().st_size)


def print_speeds(found: dict[str, dict[Shape, Any]], peers: dict[str, Peer], threads: int) -> None:
    print(f"\nsequences/s at batch x tokens, {threads} thread(s), medians of one interleaved run (± half the spread)")
    print(f"{'':20}" + "".join(f"{shape!s:>16}" for shape in SHAPES) + f"{'MB':>8}")
    for name, by_shape in found.items():
        cells = [f"{by_shape[shape].sequences_per_s:,.0f} ±{50 * by_shape[shape].spread:.0f}%" for shape in SHAPES]
        print(f"{name:20}" + "".join(f"{cell:>16}" for cell in cells) + f"{peers[name].size / 1e6:8.1f}")
    for base in ("eager", "ort fp32", "ov int8 stock"):
        if base not in found:
            continue
        ratios = [found["bundle"][s].sequences_per_s / found[base][s].sequences_per_s for s in SHAPES]
        print(f"{'bundle / ' + base:20}" + "".join(f"{ratio:>15.1f}×" for ratio in ratios))


def print_accuracy(source: Source, bundle: Bundle) -> None:
    rows, dense = source.test()
    logits = Predictor(bundle.path, bundle.spec, bundle.target("cpu")).logits(rows.texts)
    task = get_task(source.task)
    print(f"\ntest, {len(rows.texts):,} rows that no search has seen")
    for metric in ("accuracy", "macro_f1"):
        values = [task.evaluate(each, rows.targets, source.labels)[metric] for each in (dense, logits)]
        against = compare(
            rows.targets, dense.argmax(1), logits.argmax(1), metric=metric, classes=len(source.labels), seed=0
        )
        print(
            f"{metric:10} dense {values[0]:.4f}, bundle {values[1]:.4f}: {against.loss_points:+.2f} points lost "
            f"(95 %: {against.low:.2f} to {against.high:.2f})"
        )


if __name__ == "__main__":
    main()
