"""Lessons: what the students of a search learn from, and how far each goes on learning.

The dense model is asked once for everything that it has to teach, and students go through it as often as their cut
pays for (`export.search.plans`): work is bounded by operations, so that the same recipe makes the same students on a
slower machine.
"""

import contextlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from export.distillation import Distillation, Teacher, teach
from export.pruning import structure_of
from export.search.plans import TEACHING, Cut
from export.source import Source, tokenizer_of
from slipway.errors import ExportError
from slipway.progress import say
from slipway.recipe import Export

_BATCH = 32
_LEARNING_RATE = 4e-4
_STATE_WEIGHT = 10.0
_FEWEST_EPOCHS, _MOST_EPOCHS = 1.0, 15.0
_MOST_STATE_BYTES = 2 << 30


@dataclass(frozen=True)
class Lesson:
    """Texts, their class numbers (None without) and what the dense model says of them."""

    texts: list[str]
    targets: list[int | None]
    answers: Teacher


def lesson(source: Source, section: Export, unlabelled: Sequence[str], folder: Path) -> Lesson:
    """Ask the dense model, or take its answers from `folder` where they are kept."""
    from slipway.pruned import load_classifier

    model = load_classifier(source.path)
    texts, targets = _texts(source, section, unlabelled, model)
    file = folder / f"teacher-{len(texts)}.safetensors"
    if file.exists():
        # One that was damaged is asked for again, like all that a search has finished.
        with contextlib.suppress(ExportError):
            return Lesson(texts, targets, Teacher.read(file))
    layers = _kept_layers(model, len(texts))
    answers = teach(model, tokenizer_of(source.path), texts, max_tokens=source.max_tokens, layers=layers)
    file.parent.mkdir(parents=True, exist_ok=True)
    answers.write(file)
    return Lesson(texts, targets, answers)


def recovery(source: Source, model: Any, cut: Cut, taught: Lesson) -> Distillation:
    """How `model`, cut down by `cut`, learns: as many epochs as the cut has operations for."""
    from slipway.pruned import shapes_of

    structure = structure_of(model)
    shapes = shapes_of(model)
    epoch = 6 * structure.multiply_adds(shapes) * _mean_tokens(source, taught.texts) * len(taught.texts)
    last = len(structure.dense) - 1
    # A student's layers are spread evenly over the teacher's, so that the last one learns from the last.
    matched = {
        layer: round((layer + 1) * (last + 1) / len(shapes)) - 1
        for layer in range(len(shapes))
        if not structure.shares_layers
    }
    return Distillation(
        epochs=round(min(_MOST_EPOCHS, max(_FEWEST_EPOCHS, cut.operations / epoch)), 3),
        batch_size=_BATCH,
        learning_rate=_LEARNING_RATE * min(1.0, math.sqrt(384 / model.config.hidden_size)),
        layers={own: other for own, other in matched.items() if other in taught.answers.states},
        state_weight=_STATE_WEIGHT,
        max_tokens=source.max_tokens,
    )


def _texts(
    source: Source, section: Export, unlabelled: Sequence[str], model: Any
) -> tuple[list[str], list[int | None]]:
    """As many texts as the plan pays for, drawn from train and the unlabelled ones alike."""
    texts = [*source.train.texts, *unlabelled]
    targets: list[int | None] = [int(target) for target in source.train.targets]
    targets += [None] * len(unlabelled)
    structure = structure_of(model)
    per_text = 2 * structure.multiply_adds(structure.dense) * _mean_tokens(source, texts)
    most = max(256, int(TEACHING[section.effort] / per_text))
    if most >= len(texts):
        return texts, targets
    say(f"  distilling from {most:,} of {len(texts):,} texts, as many as this effort pays for")
    chosen = sorted(np.random.default_rng(section.seed).permutation(len(texts))[:most].tolist())
    return [texts[row] for row in chosen], [targets[row] for row in chosen]


def _mean_tokens(source: Source, texts: Sequence[str]) -> float:
    """Mean tokens of a text, from a thousand of them."""
    few = list(texts[:: max(1, len(texts) // 1000)])
    encoded = tokenizer_of(source.path)(few, truncation=True, max_length=source.max_tokens)["input_ids"]
    return float(np.mean([len(ids) for ids in encoded]))


def _kept_layers(model: Any, texts: int) -> list[int]:
    """Layers whose states are kept: all, or the last one where all would not fit into memory."""
    count = int(model.config.num_hidden_layers)
    total = 2 * texts * count * int(model.config.hidden_size)
    return list(range(count)) if total <= _MOST_STATE_BYTES else [count - 1]
