"""Which units go: first-order Taylor importance beside magnitude and chance, at the same cuts.

    python benchmarks/export/importance.py CHECKPOINT [--compute 0.5 0.2] [--epochs 1] [--seeds 3] [--quick]

Each cut takes out the same layers (by elimination, as a search does) and then heads and neurons by each ranking, with
everything else as `export.search.students` has it: the same floor in each layer, training rows, 4-bit embeddings and
distillation, here for --epochs. Seeds 0, 1, … are those of the shuffling while recovering and, for chance, of the
ranking; which training rows rank is seed 0's. Printed on dev: macro-F1 of each before and after recovery (mean over the
seeds), points lost to the dense model, and points that Taylor is ahead, with 95 % intervals of a paired bootstrap over
the rows (the seeds themselves are not resampled). Uses as many threads as PyTorch takes.
"""

import argparse
import dataclasses
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from export.distillation import distil, teach
from export.evaluation.significance import compare
from export.pruning import structure_of
from export.pruning.importance import Importance, LayerImportance, magnitude, taylor
from export.search.lessons import Lesson, lesson, recovery
from export.search.plans import Cut
from export.search.students import cut_down, round_embeddings
from export.source import Rows, Source, tokenizer_of
from slipway.pruned import load_classifier
from slipway.recipe import Export
from slipway.tasks import get_task

LAYERS = {0.5: 0.84, 0.3: 0.67, 0.2: 0.67, 0.15: 0.5, 0.1: 0.5}
"""Share of the layers that stays in a search's cuts; half of them at other cuts."""

IntArray = npt.NDArray[np.int64]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--compute", type=float, nargs="+", default=[0.5, 0.2])
    parser.add_argument("--epochs", type=float, default=1.0)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="few rows, to see that it runs")
    arguments = parser.parse_args()
    source = Source.open(arguments.checkpoint)
    if arguments.quick:
        source = dataclasses.replace(
            source,
            train=Rows(source.train.texts[:128], source.train.targets[:128]),
            dev=Rows(source.dev.texts[:64], source.dev.targets[:64]),
            dev_logits=source.dev_logits[:64],
        )
    seeds = range(1 if arguments.quick else arguments.seeds)
    print_head(source, arguments.epochs, len(seeds))
    with tempfile.TemporaryDirectory() as work:
        taught = lesson(source, Export(effort="full"), [], Path(work))
        for compute in arguments.compute:
            cut = Cut(f"c{100 * compute:.0f}", compute, LAYERS.get(compute, 0.5), 1.0)
            found = {
                method: [students(source, taught, cut, method, seed, arguments.epochs, Path(work)) for seed in seeds]
                for method in ("taylor", "magnitude", "chance")
            }
            for when in (0, 1):
                print_rows(source, cut, ("no", f"{arguments.epochs:g} epochs")[when], {
                    method: np.stack([pair[when] for pair in pairs]) for method, pairs in found.items()
                })  # fmt: skip


def students(
    source: Source, taught: Lesson, cut: Cut, method: str, seed: int, epochs: float, work: Path
) -> tuple[IntArray, IntArray]:
    """Class numbers on dev before and after recovery."""
    rank = {"taylor": taylor, "magnitude": magnitude, "chance": lambda model, _: chance(model, seed)}[method]
    tokenizer = tokenizer_of(source.path)
    model, _ = cut_down(source, load_classifier(source.path), tokenizer, cut, seed=0, rank=rank)
    round_embeddings(model)
    before = answers(source, model, tokenizer)
    settings = dataclasses.replace(recovery(source, model, cut, taught), epochs=epochs)
    run = work / f"{cut.name}-{method}-{seed}"
    distil(model, tokenizer, taught.texts, taught.targets, taught.answers, settings, seed=seed, work=run)
    return before, answers(source, model, tokenizer)


def chance(model: Any, seed: int) -> Importance:
    generator = np.random.default_rng(seed)
    shapes = [layer.shape for layer in structure_of(model).layers]
    layers = [
        LayerImportance(
            generator.random(shape.heads, dtype=np.float32), generator.random(shape.neurons, dtype=np.float32)
        )
        for shape in shapes
    ]
    return Importance("chance", tuple(layers), 0)


def answers(source: Source, model: Any, tokenizer: Any) -> IntArray:
    found = teach(model, tokenizer, source.dev.texts, max_tokens=source.max_tokens, precision="fp32")
    return found.logits.argmax(1)


def print_head(source: Source, epochs: float, seeds: int) -> None:
    import torch

    print(
        f"dense: macro-F1 {source.dense_dev['macro_f1']:.4f} on {len(source.dev.texts):,} dev rows; recovery: "
        f"{epochs:g} epochs of {len(source.train.texts):,} texts; seeds 0 to {seeds - 1}; "
        f"{torch.get_num_threads()} threads\n"
    )
    heads = ["computation", "recovery", "ranking", "macro-F1", "points lost (95 %)", "Taylor ahead by (95 %)"]
    print("| " + " | ".join(heads) + " |\n|" + " --- |" * len(heads))


def print_rows(source: Source, cut: Cut, recovered: str, found: Mapping[str, IntArray]) -> None:
    dense, targets, classes = source.dev_logits.argmax(1), source.dev.targets, len(source.labels)

    def against(reference: IntArray, predicted: IntArray) -> str:
        one = compare(targets, reference, predicted, metric="macro_f1", classes=classes, seed=0)
        return f"{one.loss_points:+.2f} ({one.low:.2f} to {one.high:.2f})"

    for method, predicted in found.items():
        ahead = "" if method == "taylor" else against(found["taylor"], predicted)
        value = np.mean([macro_f1(source, one) for one in predicted])
        cells = [f"{cut.compute:.0%}", recovered, method, f"{value:.4f}", against(dense, predicted), ahead]
        print("| " + " | ".join(cells) + " |", flush=True)


def macro_f1(source: Source, predicted: Sequence[int] | IntArray) -> float:
    logits = np.eye(len(source.labels), dtype=np.float32)[predicted]
    return float(get_task(source.task).evaluate(logits, source.dev.targets, source.labels)["macro_f1"])


if __name__ == "__main__":
    main()
