"""What a pruned student makes of hard labels alone, of the dense model's logits, and of its hidden states.

    python benchmarks/export/distillation.py CHECKPOINT [--compute 0.25] [--layers 4] [--epochs 3] [--seeds 1]

All students are cut alike, by Taylor importance on training texts, and trained on the same texts in the same order;
seeds take turns over the ways. Printed: mean and range over the seeds of accuracy and macro-F1 on dev, points of
macro-F1 lost to the dense model, texts/s of training and its ratio to the first row. Uses as many threads as PyTorch
takes. Dev picks nothing here: the last weights are judged.
"""

import argparse
import copy
import json
import statistics
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
import transformers

from export.distillation import Distillation, distil, teach
from export.distillation.token_batches import by_budget, tokenize
from export.pruning import plan, prune, structure_of
from export.pruning.importance import measure
from slipway.pruned import load_classifier, shapes_of
from slipway.tasks.metrics import classification_metrics

_RANKED_TEXTS = 768


def ways(settings: Distillation, layers: dict[int, int]) -> dict[str, Distillation]:
    return {
        "hard labels only": replace(settings, alpha=0.0),
        "logits": settings,
        "logits, dropout 0.1": replace(settings, dropout=0.1),
        "logits + states (cosine)": replace(settings, layers=layers, state_weight=1.0),
        "logits + states (mse)": replace(settings, layers=layers, state_weight=1.0, state_distance="mse"),
        "logits + last state (mse)": replace(
            settings, layers={max(layers): layers[max(layers)]}, state_weight=1.0, state_distance="mse"
        ),
    }


def cut(dense: Any, tokenizer: Any, texts: list[str], targets: list[int], arguments: argparse.Namespace) -> Any:
    few = np.random.default_rng(0).permutation(len(texts))[:_RANKED_TEXTS]
    tokens = tokenize(dense, tokenizer, [texts[row] for row in few], arguments.max_tokens)
    batches = [
        tokens.batch(rows) | {"labels": torch.tensor([targets[row] for row in few[rows]])}
        for rows in by_budget(tokens.lengths, 1024)
    ]
    structure = structure_of(dense)
    chosen = plan(measure(dense, batches), structure, compute=arguments.compute, layers=arguments.layers)
    return prune(dense, chosen)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--compute", type=float, default=0.25, help="share of the dense model's that is left")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--texts", type=int, default=0, help="of the training split; 0 for all")
    parser.add_argument("--epochs", type=float, default=3.0)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--learning-rate", type=float, default=Distillation.learning_rate)
    parser.add_argument("--max-tokens", type=int, default=128)
    parser.add_argument("--only", nargs="*", help="ways whose names contain one of these")
    arguments = parser.parse_args()

    transformers.logging.set_verbosity_error()
    dense = load_classifier(arguments.checkpoint)
    tokenizer = transformers.AutoTokenizer.from_pretrained(arguments.checkpoint)
    labels = json.loads((arguments.checkpoint / "config.json").read_text())["label2id"]
    splits = {}
    for name in ("train", "dev"):
        table = pq.read_table(arguments.checkpoint / "data" / f"{name}.parquet").to_pydict()
        splits[name] = table["text"], [labels[label] for label in table["label"]]
    texts, targets = splits["train"]
    if arguments.texts:
        rows = np.random.default_rng(0).permutation(len(texts))[: arguments.texts]
        texts, targets = [texts[row] for row in rows], [targets[row] for row in rows]

    def judge(model: Any) -> dict[str, float]:
        answers = teach(model, tokenizer, splits["dev"][0], max_tokens=arguments.max_tokens, precision="fp32")
        return classification_metrics(answers.logits, np.array(splits["dev"][1]), list(labels))

    student = cut(dense, tokenizer, texts, targets, arguments)
    layers = {number: shape.source for number, shape in enumerate(shapes_of(student))}
    last = len(structure_of(dense).layers) - 1
    layers[max(layers)] = last  # the head reads it
    teacher = teach(dense, tokenizer, texts, max_tokens=arguments.max_tokens, layers=sorted(set(layers.values())))
    settings = Distillation(
        epochs=arguments.epochs, learning_rate=arguments.learning_rate, max_tokens=arguments.max_tokens
    )
    reference = judge(dense)
    results: dict[str, list[tuple[dict[str, float], float]]] = {}
    chosen = {
        name: way
        for name, way in ways(settings, layers).items()
        if not arguments.only or any(part in name for part in arguments.only)
    }
    for seed in range(arguments.seeds):
        for name, way in chosen.items():
            model = copy.deepcopy(student)
            with tempfile.TemporaryDirectory() as work:
                curve = distil(model, tokenizer, texts, targets, teacher, way, seed=seed, work=Path(work))
            results.setdefault(name, []).append((judge(model), curve.texts_per_s))
    print(
        f"{len(texts)} texts × {arguments.epochs:g} epochs, {arguments.seeds} seeds, lr {arguments.learning_rate:g}, "
        f"{torch.get_num_threads()} threads\n"
        f"student: {arguments.compute:.0%} of the computation; layers learn from {layers}\n"
        f"dense on {len(splits['dev'][0])} dev texts: accuracy {reference['accuracy']:.4f}, "
        f"macro-F1 {reference['macro_f1']:.4f}; pruned and not trained: macro-F1 {judge(student)['macro_f1']:.4f}"
    )
    first = 0.0
    for name, runs in results.items():
        accuracy = [figures["accuracy"] for figures, _ in runs]
        f1 = [figures["macro_f1"] for figures, _ in runs]
        pace = statistics.median(texts_per_s for _, texts_per_s in runs)
        first = first or pace
        lost = 100 * (reference["macro_f1"] - statistics.mean(f1))
        print(
            f"{name:28} accuracy {statistics.mean(accuracy):.4f}  macro-F1 {statistics.mean(f1):.4f} "
            f"({min(f1):.4f}–{max(f1):.4f})  lost {lost:5.2f}  {pace:5.0f} texts/s ({pace / first:.2f}×)"
        )


if __name__ == "__main__":
    main()
