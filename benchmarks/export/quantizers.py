"""What each quantizer costs in accuracy and gives in speed, on both engines, side by side in one run.

    python benchmarks/export/quantizers.py CHECKPOINT BUNDLE [--texts 500] [--calibration 256] [--only int8-static,w4]
                                           [--plain] [--budget 60]

The checkpoint gives model and texts (calibration from train, accuracy from dev), any bundle of it the tokenization. The
graph is rewritten for inference first unless --plain. Printed for each quantizer and engine: bytes, seconds to make,
agreement with fp32 PyTorch, divergence (nats a text), macro F1, sequences/s at four shapes with one thread, ratio to
ONNX Runtime fp32 at 32x32 and the share of the machine's peaks of its products' precisions there.
"""

import argparse
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from export.graph import export_onnx
from export.measurement import Corpus, Shape, roofline, speeds
from export.quantization import QUANTIZERS
from export.quantization.mixed import divergence
from export.rewrites import rewrite
from export.source import Source
from slipway.bundle import TOKENIZER, Bundle, Target
from slipway.engines import defaults, open_session
from slipway.errors import ExportError
from slipway.predictor import Encoder
from slipway.pruned import load_classifier
from slipway.tasks import get_task

SHAPES = [Shape(1, 32), Shape(8, 32), Shape(32, 32), Shape(8, 128)]
_BATCH = 16


def batches(encode: Encoder, texts: list[str]) -> list[dict[str, npt.NDArray[np.int64]]]:
    ordered = sorted(texts, key=len)
    return [encode(ordered[start : start + _BATCH]) for start in range(0, len(ordered), _BATCH)]


def answers(run: Any, encode: Encoder, texts: list[str]) -> npt.NDArray[np.float32]:
    return np.concatenate([run(encode([text])) for text in texts])


def main() -> None:
    """Make every variant, then print what it loses and gives."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--texts", type=int, default=500)
    parser.add_argument("--calibration", type=int, default=256)
    parser.add_argument("--only", type=lambda names: names.split(","), default=list(QUANTIZERS))
    parser.add_argument("--plain", action="store_true")
    parser.add_argument("--budget", type=float, default=60.0, help="seconds of measuring speed")
    arguments = parser.parse_args()

    source, bundle = Source.open(arguments.checkpoint), Bundle.open(arguments.bundle)
    encode = Encoder(bundle.path / TOKENIZER, bundle.spec.tokenization)
    generator = np.random.default_rng(0)
    rows = generator.permutation(len(source.dev.texts))[: arguments.texts]
    texts, reference = [source.dev.texts[row] for row in rows], source.dev_logits[rows]
    calibration = batches(encode, list(generator.permutation(source.train.texts)[: arguments.calibration]))
    runs: dict[str, Any] = {}
    lines: dict[str, list[str]] = {}
    work: dict[str, roofline.Operations] = {}
    with tempfile.TemporaryDirectory() as folder:
        dense = export_onnx(load_classifier(arguments.checkpoint), source.task, Path(folder) / "dense.onnx")
        if not arguments.plain:
            rewrite(dense, rewritten := Path(folder) / "rewritten.onnx")
            dense = rewritten
        for name in dict.fromkeys(["fp32", *arguments.only]):
            quantizer = QUANTIZERS[name]
            started = time.perf_counter()
            model = quantizer.quantize(dense, Path(folder) / f"{name}.onnx", calibration)
            seconds = time.perf_counter() - started
            operations = roofline.operations(model, Shape(32, 32))
            for engine in ("onnxruntime", "openvino"):
                target = Target(model=model.name, precision=quantizer.precision, engine=engine, **defaults(engine))
                try:
                    session = open_session(model, target, threads=1)
                except ExportError as error:
                    print(f"{name} on {engine}: {error}")
                    continue
                logits = answers(session.run, encode, texts)
                metrics = get_task(source.task).evaluate(logits, source.dev.targets[rows], source.labels)
                key = f"{name} {engine}"
                runs[key], work[key] = session.run, operations
                lines[key] = [
                    f"{model.stat().st_size / 1e6:.1f}",
                    f"{seconds:.0f}",
                    f"{(logits.argmax(1) == reference.argmax(1)).mean():.1%}",
                    f"{divergence(reference, logits):.5f}",
                    f"{metrics['macro_f1']:.4f}",
                ]
        measured = speeds(runs, SHAPES, Corpus(encode, source.dev.texts), budget_s=arguments.budget)
    print_table(lines, measured, work)


def print_table(
    lines: Mapping[str, list[str]], measured: Mapping[str, Any], work: Mapping[str, roofline.Operations]
) -> None:
    """Markdown: one row for a quantizer on an engine."""
    peaks = roofline.peaks(1)
    base = measured["fp32 onnxruntime"][Shape(32, 32)].sequences_per_s
    print(f"one thread; peaks in G operations/s: int8 {peaks.int8:.0f}, bf16 {peaks.bf16:.0f}, fp32 {peaks.fp32:.0f}\n")
    heads = ["variant", "MB", "made in s", "agreement", "divergence", "macro F1", *map(str, SHAPES), "ratio", "of peak"]
    print("| " + " | ".join(heads) + " |\n|" + " --- |" * len(heads))
    for name, line in lines.items():
        rates = [measured[name][shape].sequences_per_s for shape in SHAPES]
        reached = roofline.share(work[name], rates[2], peaks)
        cells = [name, *line, *(f"{rate:.0f}" for rate in rates), f"{rates[2] / base:.2f}", f"{reached:.0%}"]
        print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
