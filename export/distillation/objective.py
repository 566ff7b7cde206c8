"""Distillation: a smaller model learns what the dense one says about a text, not only the text's label.

The loss is α·T²·KL(teacher ‖ student at temperature T) + (1 − α)·cross-entropy (Hinton et al. 2015), plus the distance
of hidden states in the row that the head reads (PKD, Sun et al. 2019). A text without a label has its whole weight in
the first term, so unlabelled text of the domain is learned from like any other. The teacher's answers are computed once
(`export.distillation.teacher`).

MiniLM cut to 25 % of its computation in 4 layers, taught by 4,000 texts for 2 epochs, lost on 2,352 dev texts: by hard
labels alone 7.5 points of macro-F1, by logits 6.8, with states by cosine 5.8, with states by relative squared distance
6.9, by logits with dropout 9.1. One seed and ± 2 points each, so this is an order and no proof; dropout also takes time
to draw, and is off by default (benchmarks/export/distillation.py).

The loop that trains is `export.distillation.learning`. What keeps it quick: texts tokenized once, batches of similar
length, bf16 where native, the fused optimizer, token embeddings frozen (half of MiniLM's weights; a table shows few of
them), the teacher's states as rows instead of tokens.
"""

import dataclasses
import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from export.distillation.learning import Curve, Learning, learn
from export.distillation.resumption import fingerprint
from export.distillation.teacher import Row, Teacher, head_row, layer_state, read_row
from export.distillation.token_batches import Tokens, tokenize
from slipway.errors import ExportError
from slipway.progress import say

_UNLABELLED = -100


@dataclass(frozen=True)
class Distillation(Learning):
    """How a student learns from its teacher."""

    temperature: float = 2.0
    """T: what the logits of both are divided by."""
    alpha: float = 0.8
    """Weight of the teacher's answer; the label has the rest."""
    layers: Mapping[int, int] = field(default_factory=dict)
    """Student layer → teacher layer (both from 0) whose states are compared, if they are equally wide."""
    state_weight: float = 1.0
    """Weight of the mean distance of these layers' states."""
    state_distance: Literal["cosine", "mse"] = "cosine"
    """`cosine`: 1 − cos of the angle; `mse`: squared distance relative to the teacher's squared norm."""
    max_tokens: int = 128
    """Longer texts are cut."""

    def __post_init__(self) -> None:
        if self.temperature <= 0 or not 0 <= self.alpha <= 1 or self.epochs <= 0 or self.batch_size < 1:
            raise ExportError(
                f"distillation with temperature {self.temperature:g}, alpha {self.alpha:g}, epochs {self.epochs:g}, "
                f"batch_size {self.batch_size}: temperature and epochs must be above 0, alpha in 0…1, batch_size ≥ 1"
            )


def distil(
    student: Any,
    tokenizer: Any,
    texts: Sequence[str],
    targets: Sequence[int | None] | npt.NDArray[np.int64] | None,
    teacher: Teacher,
    settings: Distillation,
    *,
    seed: int,
    work: Path,
    deadline: float | None = None,
    evaluate: Callable[[Any], float] | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Curve:
    """Train `student` in place, and leave it in eval mode with the best weights.

    Args:
        student: a transformers classifier with the teacher's labels; layers may differ in size.
        tokenizer: its fast tokenizer.
        texts: what `teacher` was asked about, in the same order.
        targets: class numbers, None for a text without label; None if no text has one.
        teacher: the answers to learn from.
        settings: how to learn.
        seed: of shuffling and dropout; the same seed (and number of threads) gives the same weights, bit by bit, unless
            a deadline shortened the run.
        work: folder of this run's state, gone on with if it is of the same run (student, texts, answers, settings,
            seed). A finished run is recognised, and its weights are loaded.
        deadline: in seconds of `clock`. Steps are planned from the measured pace so that the learning rate has
            fallen by then; no step starts later.
        evaluate: the higher for a model (in eval mode), the better. Without, the last weights count as the best; with,
            those before the first step are considered, too, so that learning never makes it worse.
        clock: what time it is, in seconds.

    Raises `ExportError` for texts, labels and layers that don't fit together or a loss that isn't finite, and
    `KeyboardInterrupt` after saving if interrupted.
    """
    tokens = tokenize(student, tokenizer, texts, settings.max_tokens)
    lesson = _prepare(student, tokens, targets, teacher, settings)
    identity = fingerprint(
        {
            "settings": json.loads(json.dumps(dataclasses.asdict(settings))),
            "seed": seed,
            "texts": hashlib.sha256("\0".join(texts).encode("utf-8", "surrogatepass")).hexdigest(),
            "targets": lesson.targets.tolist(),
            "teacher": teacher.digest(),
            "evaluated": evaluate is not None,
        },
        student.state_dict(),
    )

    def loss(numbers: npt.NDArray[np.int64]) -> Any:
        return _loss(student, tokens.batch(numbers, lesson.logits.device), numbers, lesson, settings)

    return learn(
        student,
        loss,
        tokens.lengths,
        settings,
        seed=seed,
        work=work,
        identity=identity,
        deadline=deadline,
        evaluate=evaluate,
        clock=clock,
    )


@dataclass(frozen=True)
class _Lesson:
    """What the loss compares with, on the student's device; all of [texts, …]."""

    logits: Any
    targets: Any
    teacher_weight: Any
    states: dict[int, Any]
    row: Row


def _prepare(
    student: Any,
    tokens: Tokens,
    targets: Sequence[int | None] | npt.NDArray[np.int64] | None,
    teacher: Teacher,
    settings: Distillation,
) -> _Lesson:
    import torch

    count, labels = teacher.logits.shape
    if len(tokens.lengths) != count or (targets is not None and len(targets) != count):
        rows = "" if targets is None else f" and {len(targets)} labels"
        raise ExportError(f"the teacher answered to {count} texts, but there are {len(tokens.lengths)} texts{rows}")
    if student.config.num_labels != labels:
        raise ExportError(f"the student has {student.config.num_labels} labels, but its teacher has {labels}")
    given: Sequence[int | None] = [None] * count if targets is None else list(targets)
    numbers = np.array([_UNLABELLED if target is None else int(target) for target in given], dtype=np.int64)
    if numbers.max() >= labels or (numbers[numbers != _UNLABELLED] < 0).any():
        raise ExportError(f"a label is {numbers.max()}, but the teacher has only labels 0 to {labels - 1}")
    missing = set(settings.layers.values()) - set(teacher.states)
    if missing:
        raise ExportError(f"the teacher was not asked for the states of layers {sorted(missing)}")
    device = next(student.parameters()).device
    width = student.config.hidden_size
    states = {
        layer: torch.from_numpy(teacher.states[source]).to(device)
        for layer, source in settings.layers.items()
        if teacher.states[source].shape[1] == width
    }
    if len(states) < len(settings.layers):
        say(f"The student's states have {width} values and the teacher's have not: its logits alone are learned")
    weights = np.where(numbers == _UNLABELLED, 1.0, settings.alpha)
    return _Lesson(
        logits=torch.from_numpy(teacher.logits).to(device),
        targets=torch.from_numpy(numbers).to(device),
        teacher_weight=torch.from_numpy(weights.astype(np.float32)).to(device),
        states=states,
        row=head_row(student) if states else "first",
    )


def _cosine(student: Any, teacher: Any) -> Any:
    from torch.nn.functional import cosine_similarity

    return 1 - cosine_similarity(student, teacher, dim=1).mean()


def _relative_mse(student: Any, teacher: Any) -> Any:
    return ((student - teacher).square().sum(1) / teacher.square().sum(1).clamp_min(1e-6)).mean()


_DISTANCES = {"cosine": _cosine, "mse": _relative_mse}


def _loss(
    student: Any, batch: dict[str, Any], numbers: npt.NDArray[np.int64], lesson: _Lesson, settings: Distillation
) -> Any:
    """Scalar loss of the texts of these numbers, whose tokens are `batch`."""
    import torch
    from torch.nn import functional

    texts = torch.from_numpy(numbers).to(lesson.logits.device)

    output = student(**batch, output_hidden_states=bool(lesson.states))
    logits = output.logits.float()
    temperature = settings.temperature
    divergence = functional.kl_div(
        functional.log_softmax(logits / temperature, 1),
        functional.log_softmax(lesson.logits[texts] / temperature, 1),
        log_target=True,
        reduction="none",
    ).sum(1)
    entropy = functional.cross_entropy(logits, lesson.targets[texts], ignore_index=_UNLABELLED, reduction="none")
    weight = lesson.teacher_weight[texts]
    loss = (weight * temperature**2 * divergence + (1 - weight) * entropy).mean()
    distance = _DISTANCES[settings.state_distance]
    for layer, state in lesson.states.items():
        own = read_row(lesson.row, layer_state(output.hidden_states, layer), batch["attention_mask"])
        loss = loss + settings.state_weight / len(lesson.states) * distance(own.float(), state[texts].float())
    return loss
