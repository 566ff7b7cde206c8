"""Quantization-aware fine-tuning beside calibration alone, where static int8 hurts most.

    python benchmarks/export/qat.py CHECKPOINT [--compute 1 0.1] [--epochs 1] [--seed 0] [--quick]

Of each model (1: the dense checkpoint; less: a student of that share of its computation, cut in one step and recovered
as in a search's last link), on dev: fp32; calibrated int8 by ONNX Runtime's own MinMax, which smooths nothing, and by
ours (`int8-static`); the same two after fine-tuning with rounding in it (`export.quantization.qat`); and, as the
control that tells rounding from more training, after as many epochs without. Files run on ONNX Runtime, texts one at a
time. Printed: macro-F1, points lost to that model's fp32, and points gained over calibration alone, with 95 % intervals
of a paired bootstrap over the rows. One seed, which is stated.
"""

import argparse
import copy
import dataclasses
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from export.distillation import distil
from export.evaluation.significance import compare
from export.graph import export_onnx, input_names
from export.quantization import QUANTIZERS
from export.quantization.calibration_texts import CALIBRATION_TEXTS, sample
from export.quantization.qat import SETTINGS, quantization_aware
from export.rewrites import rewrite
from export.search.lessons import Lesson, lesson, recovery
from export.search.plans import Cut
from export.search.students import cut_down, round_embeddings
from export.source import Rows, Source, tokenizer_of
from slipway.bundle import TOKENIZER, Target, Tokenization
from slipway.engines import defaults, open_session
from slipway.predictor import Encoder
from slipway.pruned import load_classifier
from slipway.recipe import Export
from slipway.tasks import get_task

OPERATIONS = 3e13
"""Of a student's recovery: those of a search's last link."""
METHODS = ("int8-minmax", "int8-static")

IntArray = npt.NDArray[np.int64]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--compute", type=float, nargs="+", default=[1.0, 0.1])
    parser.add_argument("--epochs", type=float, default=SETTINGS.epochs)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="few rows, to see that it runs")
    arguments = parser.parse_args()
    source, operations = Source.open(arguments.checkpoint), OPERATIONS
    if arguments.quick:
        operations = 1.0
        source = dataclasses.replace(
            source,
            train=Rows(source.train.texts[:128], source.train.targets[:128]),
            dev=Rows(source.dev.texts[:64], source.dev.targets[:64]),
            dev_logits=source.dev_logits[:64],
        )
    print(f"{len(source.dev.texts):,} dev rows, {len(source.train.texts):,} training texts, seed {arguments.seed}\n")
    heads = ["model", "fine-tuned", "precision", "macro-F1", "points lost (95 %)", "gained by fine-tuning (95 %)"]
    print("| " + " | ".join(heads) + " |\n|" + " --- |" * len(heads))
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        taught = lesson(source, Export(effort="full"), [], work)
        for compute in arguments.compute:
            name = "dense" if compute == 1 else f"{compute:.0%}"
            model = load_classifier(source.path)
            if compute < 1:
                cut = Cut(name, compute, 0.5, operations)
                model = student(source, model, cut, taught, arguments.seed, work / name)
            print_rows(source, name, compared(source, model, taught, arguments, work / name))


def student(source: Source, model: Any, cut: Cut, taught: Lesson, seed: int, work: Path) -> Any:
    tokenizer = tokenizer_of(source.path)
    smaller, _ = cut_down(source, model, tokenizer, cut, seed=seed)
    round_embeddings(smaller)
    settings = recovery(source, smaller, cut, taught)
    distil(smaller, tokenizer, taught.texts, taught.targets, taught.answers, settings, seed=seed, work=work / "student")
    return smaller


def compared(
    source: Source, model: Any, taught: Lesson, arguments: argparse.Namespace, work: Path
) -> dict[tuple[str, str], IntArray]:
    """Class numbers on dev by (how it was fine-tuned, precision)."""
    tokenizer, seed = tokenizer_of(source.path), arguments.seed
    settings = dataclasses.replace(SETTINGS, max_tokens=source.max_tokens, epochs=arguments.epochs)
    encode = encoder(source, model, input_names(graph(source, model, work / "no")))
    calibration = [encode([text]) for text in sample(source.train.texts, CALIBRATION_TEXTS, seed)]
    adapted = quantization_aware(
        model,
        tokenizer,
        taught.texts,
        taught.targets,
        taught.answers,
        calibration,
        settings,
        seed=seed,
        work=work / "rounding",
    ).model
    longer = copy.deepcopy(model)
    distil(longer, tokenizer, taught.texts, taught.targets, taught.answers, settings, seed=seed, work=work / "longer")
    found = {}
    for tuned, one in {"no": model, "with rounding": adapted, "without rounding": longer}.items():
        file = graph(source, one, work / tuned.replace(" ", "-"))
        for method in ("fp32", *METHODS):
            found[tuned, method] = answers(source, encode, file, method, calibration)
    return found


def graph(source: Source, model: Any, folder: Path) -> Path:
    out = folder / "model.onnx"
    if not out.is_file():
        rewrite(export_onnx(model, source.task, folder / "plain.onnx"), out)
    return out


def answers(source: Source, encode: Encoder, model: Path, method: str, calibration: list[dict[str, Any]]) -> IntArray:
    quantizer = QUANTIZERS[method]
    file = quantizer.quantize(model, model.with_name(f"{method}.onnx"), calibration)
    target = Target(model=file.name, precision=quantizer.precision, **defaults("onnxruntime"))
    session = open_session(file, target)
    return np.concatenate([session.run(encode([text])) for text in source.dev.texts]).argmax(1)


def encoder(source: Source, model: Any, inputs: list[Any]) -> Encoder:
    tokenization = Tokenization(
        max_tokens=source.max_tokens, pad_token="", pad_id=model.config.pad_token_id or 0, inputs=inputs
    )  # texts go one at a time, so nothing is padded
    return Encoder(source.path / TOKENIZER, tokenization)


def print_rows(source: Source, name: str, found: Mapping[tuple[str, str], IntArray]) -> None:
    targets, classes = source.dev.targets, len(source.labels)

    def lost(reference: IntArray, predicted: IntArray) -> Any:
        return compare(targets, reference, predicted, metric="macro_f1", classes=classes, seed=0)

    for (tuned, method), predicted in found.items():
        logits = np.eye(classes, dtype=np.float32)[predicted]
        value = get_task(source.task).evaluate(logits, targets, source.labels)["macro_f1"]
        against, gain = lost(found["no", "fp32"], predicted), lost(found["no", method], predicted)
        gained = "" if tuned == "no" else f"{-gain.loss_points:+.2f} ({-gain.high:.2f} to {-gain.low:.2f})"
        cells = [
            name,
            tuned,
            method,
            f"{value:.4f}",
            f"{against.loss_points:+.2f} ({against.low:.2f} to {against.high:.2f})",
            gained,
        ]
        print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
