"""What compression costs, held against three dense fine-tunings and recomputed from the bundle alone.

    python benchmarks/export/accuracy.py RECIPE [--seeds 3] [--effort quick] [--work FOLDER]

Fine-tunes the recipe's base from its seed and the ones after it, on the same splits (those of the recipe's seed); the
first is exported. The bundle is then opened as a server opens it (`slipway.predictor`), asked dev and test, and
compared with the mean of the dense models, with a 95 % interval and a p-value from a paired bootstrap over the rows
(the seeds themselves are not resampled). One dense run alone moves by as much as compression costs, so a loss against
it says little. What is finished is kept in --work and gone on from.
"""

import argparse
from pathlib import Path

import numpy as np
import numpy.typing as npt

from export.evaluation.significance import compare
from export.source import Rows, Source
from slipway import pipeline
from slipway.bundle import Bundle
from slipway.predictor import Predictor
from slipway.progress import say
from slipway.recipe import Recipe, load_recipe
from slipway.tasks import get_task
from training.bases import load_base
from training.evaluation import predict_logits
from training.finetuning import fine_tune
from training.splits import Split

FloatArray = npt.NDArray[np.float32]
SPLITS = ("dev", "test")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--effort", choices=["quantize", "quick", "full"], default="quick")
    parser.add_argument("--work", type=Path, default=Path("runs/accuracy"))
    arguments = parser.parse_args()
    recipe = load_recipe(arguments.recipe)
    checkpoint = pipeline.train(recipe, arguments.work / "checkpoint")
    source = Source.open(checkpoint.path)
    test, test_logits = source.test()
    rows = {"dev": source.dev, "test": test}
    dense = [{"dev": source.dev_logits, "test": test_logits}]
    seeds = range(recipe.seed, recipe.seed + arguments.seeds)
    dense += [another(recipe, seed, source, rows, arguments.work / f"seed-{seed}") for seed in seeds[1:]]
    section = recipe.export.model_copy(update={"effort": arguments.effort})
    bundle = Bundle(pipeline.export(checkpoint.path, arguments.work / "bundle", section))
    target = bundle.target(section.target)
    predictor = Predictor(bundle.path, bundle.spec, target)
    size = (bundle.path / target.model).stat().st_size / 1e6
    print(f"chosen: {bundle.artifact.manifest.metrics['variant']}, {size:.1f} MB; dense from seeds {list(seeds)}\n")
    heads = ["split", "rows", "metric", "dense", "mean", "bundle", "points lost (95 %)", "p"]
    print("| " + " | ".join(heads) + " |\n|" + " --- |" * len(heads))
    for split in SPLITS:
        logits = predictor.logits(rows[split].texts)
        for metric in ("accuracy", "macro_f1"):
            print_row(source, split, rows[split], metric, [each[split] for each in dense], logits)


def another(recipe: Recipe, seed: int, source: Source, rows: dict[str, Rows], work: Path) -> dict[str, FloatArray]:
    """Logits on dev and test of a fine-tuning from another seed, on the same rows."""
    files = {split: work / f"{split}.npy" for split in SPLITS}
    if not all(file.is_file() for file in files.values()):
        say(f"Fine-tuning from seed {seed}")
        train, dev = (
            Split(part.texts, [int(target) for target in part.targets]) for part in (source.train, source.dev)
        )
        section = recipe.train
        base = load_base(recipe.base, recipe.task, source.labels, section.max_tokens, seed=seed)
        fine_tune(base, train, dev, source.labels, section, task=recipe.task, seed=seed, work=work / "steps")
        for split, file in files.items():
            found = predict_logits(
                base.model, base.tokenizer, rows[split].texts, max_tokens=section.max_tokens, label=f"Asking {split}"
            )
            np.save(file, found, allow_pickle=False)
    return {split: np.load(file, allow_pickle=False) for split, file in files.items()}


def print_row(source: Source, split: str, rows: Rows, metric: str, dense: list[FloatArray], bundle: FloatArray) -> None:
    def value(logits: FloatArray) -> float:
        return float(get_task(source.task).evaluate(logits, rows.targets, source.labels)[metric])

    lost = compare(
        rows.targets,
        np.stack([logits.argmax(1) for logits in dense]),
        bundle.argmax(1),
        metric=metric,
        classes=len(source.labels),
        seed=0,
    )
    values = [value(logits) for logits in dense]
    cells = [
        split,
        f"{len(rows.texts):,}",
        metric,
        ", ".join(f"{one:.4f}" for one in values),
        f"{np.mean(values):.4f}",
        f"{value(bundle):.4f}",
        f"{lost.loss_points:+.2f} ({lost.low:.2f} to {lost.high:.2f})",
        f"{lost.p_value:.3f}",
    ]
    print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
