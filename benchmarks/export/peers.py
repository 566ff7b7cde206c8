"""A bundle beside what else one would reach for, on the same checkpoint, in one run.

    python benchmarks/export/peers.py CHECKPOINT BUNDLE [--threads 1 2] [--seconds 80] [--only NAME …] [--olive PYTHON]
                                      [--quick]

Compared, each as its makers' own path has it: eager PyTorch; torch.compile (a graph for each shape, its best; it needs
a C++ compiler); ONNX Runtime on the plain fp32 graph; optimum's O2, O3 and O4, and O3 with its dynamic int8 for
AVX512-VNNI; Olive's dynamic and static int8 (`olive_path.py`, by the interpreter given as --olive); OpenVINO's fp32;
OpenVINO with NNCF's stock int8 (300 training texts); the bundle's model on the bundle's engine. What can't be made or
run is a row that says why.

All take turns (`export.measurement.speeds`), for one number of threads after the other. Printed for each: sequences/s
(median; ± half the interquartile range) and the bundle's ratios to PyTorch, to ONNX Runtime fp32 and to stock OpenVINO
int8; size; and on the test split, which no search has looked at, macro-F1 and its paired loss against the dense
checkpoint with a 95 % interval. Texts are asked one at a time there, since dynamic int8 answers otherwise by batch.
About 12 minutes with Olive and --threads 1 2 on two cores, of which torch.compile has four; --quick looks only whether
everything runs.

optimum's O4 is O3 in fp16, made for GPUs. A bundle of dynamic int8 runs row by row, as it is served.
"""

import argparse
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from export.evaluation.significance import compare
from export.graph import export_onnx, input_names, quietly
from export.measurement import Corpus, Shape, speeds, torch_model
from export.quantization.calibration_texts import CALIBRATION_TEXTS, sample
from export.source import Rows, Source
from slipway.bundle import TOKENIZER, Bundle, Target
from slipway.engines import open_session
from slipway.engines.openvino import runtime
from slipway.predictor import Encoder
from slipway.pruned import load_classifier
from slipway.tasks import get_task

SHAPES = [Shape(1, 32), Shape(8, 32), Shape(32, 32), Shape(8, 128)]
BASES = ("eager", "ort fp32", "openvino int8")
INPUTS = ["input_ids", "attention_mask"]
_OLIVE_SECONDS = 300

Run = Callable[[Any], Any]


@dataclass(frozen=True)
class Peer:
    """What runs a batch with so many threads, and the size of its files."""

    run: Run
    bytes: int
    answers_as_eager: bool = False
    """It computes what eager PyTorch does, at the price of minutes for a shape that is new."""


@dataclass(frozen=True)
class Setting:
    """What all peers are made from."""

    source: Source
    bundle: Bundle
    model: Any
    plain: Path
    calibration: list[dict[str, Any]]
    work: Path
    olive: Path | None

    @property
    def weights(self) -> int:
        return sum(file.stat().st_size for file in self.source.path.glob("*.safetensors"))

    @property
    def sizes(self) -> tuple[int, int]:
        """Heads and hidden size."""
        return self.model.config.num_attention_heads, self.model.config.hidden_size


Maker = Callable[[Setting, int], Peer]
"""A peer for so many threads. What is made of the checkpoint is kept in the work folder for the next number of them."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--seconds", type=float, default=80.0, help="of measuring, for each number of threads")
    parser.add_argument("--only", nargs="*", choices=list(PEERS), help="beside eager and the bundle")
    parser.add_argument("--olive", type=Path, help="interpreter of the environment that has Olive")
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    source, bundle = Source.open(arguments.checkpoint), Bundle.open(arguments.bundle)
    wanted = [name for name in PEERS if not arguments.only or name in arguments.only or name in ("eager", "bundle")]
    shapes = [shape for shape in SHAPES if shape.tokens <= source.max_tokens]
    with tempfile.TemporaryDirectory() as work:
        setting = prepare(source, bundle, Path(work), arguments.olive, 20 if arguments.quick else CALIBRATION_TEXTS)
        test, _ = source.test()
        if arguments.quick:
            test, shapes = Rows(test.texts[:100], test.targets[:100]), shapes[:2]
        failed: dict[str, str] = {}
        for number, threads in enumerate(arguments.threads):
            with torch_model(setting.model, threads):
                peers = make(setting, [name for name in wanted if name not in failed], threads, shapes, failed)
                runs = {name: peer.run for name, peer in peers.items()}
                seconds = 2.0 if arguments.quick else arguments.seconds
                print_speeds(speeds(runs, shapes, corpora(setting, runs), budget_s=seconds), peers, shapes, threads)
                if number == 0:
                    accuracies = {
                        name: answer(setting, name, peer, test.texts)
                        for name, peer in peers.items()
                        if not peer.answers_as_eager
                    }
    print_accuracy(source, test, accuracies)
    for name, reason in failed.items():
        print(f"{name} is left out: {reason}")


def prepare(source: Source, bundle: Bundle, work: Path, olive: Path | None, texts: int) -> Setting:
    model = load_classifier(source.path)
    plain = export_onnx(model, source.task, work / "plain" / "model.onnx")
    shutil.copyfile(source.path / "config.json", plain.with_name("config.json"))
    encode = _encoder(source, bundle, input_names(plain))
    calibration = [encode([text]) for text in sample(source.train.texts, texts, 0)]
    return Setting(source, bundle, model, plain, calibration, work, olive)


def make(
    setting: Setting, names: Sequence[str], threads: int, shapes: Sequence[Shape], failed: dict[str, str]
) -> dict[str, Peer]:
    """The peers that can be made and run every shape; why the others can't goes into `failed`."""
    found = {}
    for name in names:
        started = time.perf_counter()
        try:
            peer = PEERS[name](setting, threads)
            for shape in shapes:
                peer.run(corpora(setting, [name])[name].batch(shape))
            found[name] = peer
        except Exception as error:
            if name in ("eager", "bundle"):
                raise
            lines = str(error).strip().splitlines() or [type(error).__name__]
            failed[name] = lines[0][:200]
        print(f"  {name}, {threads} thread(s): {time.perf_counter() - started:.0f} s", flush=True)
    return found


def corpora(setting: Setting, names: Sequence[str] | Mapping[str, Any]) -> dict[str, Corpus]:
    """Dev texts as each peer's tokenizer sees them."""
    texts = setting.source.dev.texts
    dense = Corpus(_encoder(setting.source, setting.bundle, INPUTS), texts)
    return {name: Corpus(_own_encoder(setting.bundle), texts) if name == "bundle" else dense for name in names}


def answer(setting: Setting, name: str, peer: Peer, texts: Sequence[str]) -> Any:
    """Class numbers that a peer gives."""
    own = _own_encoder(setting.bundle) if name == "bundle" else _encoder(setting.source, setting.bundle, INPUTS)
    return np.concatenate([np.asarray(peer.run(own([text]))) for text in texts]).argmax(1)


def _encoder(source: Source, bundle: Bundle, inputs: list[Any]) -> Encoder:
    # Only single texts and cut batches go through it, so nothing is padded, whatever the bundle's padding is.
    return Encoder(source.path / TOKENIZER, bundle.spec.tokenization.model_copy(update={"inputs": inputs}))


def _own_encoder(bundle: Bundle) -> Encoder:
    return Encoder(
        bundle.path / TOKENIZER,
        bundle.spec.tokenization,
        pad_to_multiple_of=bundle.target("cpu").pad_to_multiple_of,
    )


def eager(setting: Setting, threads: int) -> Peer:
    del threads  # those of the process

    def call(batch: Any) -> Any:
        return _torch_logits(setting.model, batch)

    return Peer(call, setting.weights)


def compiled(setting: Setting, threads: int) -> Peer:
    """Its threads are those of the process when it compiles."""
    import torch

    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        raise RuntimeError(f"torch.compile needs a C++ compiler, and there is no {compiler} (CXX)")
    torch._dynamo.reset()
    torch._dynamo.config.recompile_limit = 2 * len(SHAPES)
    run = torch.compile(setting.model, dynamic=False)
    del threads

    def call(batch: Any) -> Any:
        return _torch_logits(run, batch)

    return Peer(call, setting.weights, answers_as_eager=True)


def _torch_logits(model: Any, batch: Any) -> Any:
    import torch

    with torch.inference_mode():
        return model(**{name: torch.from_numpy(value) for name, value in batch.items()}).logits.numpy()


def onnx(engine: str, make_file: Callable[[Setting], Path]) -> Maker:
    """A peer that is a file; `make_file` finds it where it made it before."""

    def maker(setting: Setting, threads: int) -> Peer:
        file = make_file(setting)
        target = Target(model=file.name, precision="fp32", engine=engine, threads=threads)  # type: ignore[arg-type]
        session = open_session(file, target)
        zeros = [name for name in session.inputs if name not in INPUTS]

        def call(batch: Any) -> Any:
            return session.run({**batch, **{name: np.zeros_like(batch["input_ids"]) for name in zeros}})

        return Peer(call, file.stat().st_size)

    return maker


def plain(setting: Setting) -> Path:
    return setting.plain


def optimum(level: str) -> Callable[[Setting], Path]:
    """optimum's ORTOptimizer."""

    def make_file(setting: Setting) -> Path:
        from optimum.onnxruntime import AutoOptimizationConfig, ORTOptimizer

        out = setting.work / f"optimum-{level}"
        if not out.is_dir():
            with quietly():
                optimizer = ORTOptimizer.from_pretrained(setting.plain.parent)
                optimizer.optimize(AutoOptimizationConfig.with_optimization_level(level), save_dir=out)
        return out / "model_optimized.onnx"

    return make_file


def optimum_int8(setting: Setting) -> Path:
    """optimum's ORTQuantizer on its O3, dynamic, as `optimum-cli onnxruntime quantize --avx512_vnni` has it."""
    from optimum.onnxruntime import AutoQuantizationConfig, ORTQuantizer

    out = setting.work / "optimum-int8"
    if not out.is_dir():
        optimized = optimum("O3")(setting)
        with quietly():
            quantizer = ORTQuantizer.from_pretrained(optimized.parent, file_name=optimized.name)
            quantizer.quantize(AutoQuantizationConfig.avx512_vnni(is_static=False, per_channel=True), save_dir=out)
    return out / "model_optimized_quantized.onnx"


def olive(mode: str) -> Callable[[Setting], Path]:
    """Olive's passes, in its own environment."""

    def make_file(setting: Setting) -> Path:
        if setting.olive is None:
            raise RuntimeError("no environment with Olive is given (--olive; see olive_path.py)")
        out = setting.work / f"olive-{mode}"
        if not out.is_dir():
            texts = setting.work / "calibration.npz"
            arrays = {f"{row}/{name}": v for row, batch in enumerate(setting.calibration) for name, v in batch.items()}
            np.savez(texts, **arrays)
            script = Path(__file__).with_name("olive_path.py")
            heads, hidden = setting.sizes
            done = subprocess.run(
                [setting.olive, script, mode, setting.plain, out, str(heads), str(hidden), texts],
                capture_output=True,
                text=True,
                check=False,
                timeout=_OLIVE_SECONDS,
                env={**os.environ, "OLIVE_DISABLE_TELEMETRY": "1", "PYTHONPATH": ""},
            )
            if done.returncode:
                raise RuntimeError((done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1])
        (file,) = out.rglob("*.onnx")
        return file

    return make_file


def stock_openvino(setting: Setting, threads: int) -> Peer:
    """OpenVINO's own path: its model of the graph, quantized by NNCF for transformers, saved as IR."""
    import nncf
    import openvino

    out = setting.work / "openvino" / "model.xml"
    core = runtime()
    if not out.is_file():
        out.parent.mkdir()
        with quietly():
            model = core.read_model(str(setting.plain))
            data = nncf.Dataset(setting.calibration)
            quantized = nncf.quantize(
                model, data, model_type=nncf.ModelType.TRANSFORMER, subset_size=len(setting.calibration)
            )
            openvino.save_model(quantized, str(out))
    properties = {
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        "ENABLE_CPU_PINNING": False,
    }
    compiled_model = core.compile_model(str(out), "CPU", properties)
    request = compiled_model.create_infer_request()
    names = [value.any_name for value in compiled_model.inputs]

    def call(batch: Any) -> Any:
        for number, name in enumerate(names):
            array = batch.get(name)
            array = np.zeros_like(batch["input_ids"]) if array is None else np.ascontiguousarray(array)
            request.set_input_tensor(number, openvino.Tensor(array, shared_memory=True))
        request.infer(share_outputs=True)
        return np.array(request.get_output_tensor(0).data)

    return Peer(call, sum(file.stat().st_size for file in out.parent.iterdir()))


def own(setting: Setting, threads: int) -> Peer:
    target = setting.bundle.target("cpu")
    file = setting.bundle.path / target.model
    session = open_session(file, target, threads=threads)
    if target.batch_invariant:
        return Peer(session.run, file.stat().st_size)

    def row_by_row(batch: Any) -> Any:
        """As it is served: its rows would change one another's answers."""
        rows = range(len(batch["input_ids"]))
        return np.concatenate([session.run({k: v[row : row + 1] for k, v in batch.items()}) for row in rows])

    return Peer(row_by_row, file.stat().st_size)


PEERS: dict[str, Maker] = {
    "eager": eager,
    "torch.compile": compiled,
    "ort fp32": onnx("onnxruntime", plain),
    "optimum O2": onnx("onnxruntime", optimum("O2")),
    "optimum O3": onnx("onnxruntime", optimum("O3")),
    "optimum O4": onnx("onnxruntime", optimum("O4")),
    "optimum O3 int8": onnx("onnxruntime", optimum_int8),
    "olive dynamic": onnx("onnxruntime", olive("dynamic")),
    "olive static": onnx("onnxruntime", olive("static")),
    "openvino fp32": onnx("openvino", plain),
    "openvino int8": stock_openvino,
    "bundle": own,
}


def print_speeds(
    found: Mapping[str, Mapping[Shape, Any]], peers: Mapping[str, Peer], shapes: Sequence[Shape], threads: int
) -> None:
    heads = [f"sequences/s, {threads} thread(s)", *map(str, shapes), "MB"]
    print("\n| " + " | ".join(heads) + " |\n|" + " --- |" * len(heads))
    for name, by_shape in found.items():
        cells = [f"{by_shape[shape].sequences_per_s:,.0f} ±{50 * by_shape[shape].spread:.0f}%" for shape in shapes]
        print("| " + " | ".join([name, *cells, f"{peers[name].bytes / 1e6:.1f}"]) + " |")
    for base in BASES:
        if base in found:
            ratios = [found["bundle"][s].sequences_per_s / found[base][s].sequences_per_s for s in shapes]
            print("| " + " | ".join([f"bundle / {base}", *(f"{ratio:.1f}×" for ratio in ratios), ""]) + " |")


def print_accuracy(source: Source, test: Rows, answers: Mapping[str, Any]) -> None:
    task, classes = get_task(source.task), len(source.labels)
    heads = [f"test, {len(test.texts):,} rows that no search has seen", "macro-F1", "points lost (95 %)"]
    print("\n| " + " | ".join(heads) + " |\n|" + " --- |" * len(heads))
    for name, predicted in answers.items():
        value = task.evaluate(np.eye(classes, dtype=np.float32)[predicted], test.targets, source.labels)["macro_f1"]
        lost = compare(test.targets, answers["eager"], predicted, metric="macro_f1", classes=classes, seed=0)
        print(f"| {name} | {value:.4f} | {lost.loss_points:+.2f} ({lost.low:.2f} to {lost.high:.2f}) |")


if __name__ == "__main__":
    main()
