"""Logits to output tensors: labels, scores, and what else a caller asked for."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from serving.protocol import LABEL, LOGITS, SCORE, SCORES, TRUNCATED
from slipway.bundle import BundleSpec
from slipway.tasks import get_task

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Answer:
    """What a request's rows got."""

    logits: FloatArray
    """`[rows, labels]`"""
    scores: FloatArray
    """`[rows, labels]`, probabilities."""
    best: npt.NDArray[np.int64]
    """`[rows, k]`, numbers of the most probable labels, best first."""
    best_scores: FloatArray
    """`[rows, k]`, their probabilities."""
    truncated: Sequence[bool]


class Decoder:
    """Makes answers of a bundle's logits."""

    def __init__(self, spec: BundleSpec) -> None:
        self.labels = list(spec.labels)
        self._names = np.array([label.encode() for label in spec.labels], dtype=np.object_)
        self._task = get_task(spec.task)
        self._temperature = spec.temperature

    def scores(self, logits: FloatArray) -> FloatArray:
        """Probabilities `[rows, labels]`; cheaper for the rows of several requests together."""
        return self._task.probabilities(logits, self._temperature)

    def answer(self, logits: FloatArray, scores: FloatArray, truncated: Sequence[bool], top_k: int) -> Answer:
        """The answer to a request's rows with these `logits` and `scores` `[rows, labels]`."""
        if top_k == 1:
            best = scores.argmax(axis=1, keepdims=True)
            return Answer(logits, scores, best, scores.max(axis=1, keepdims=True), truncated)
        # Stable, so that of equal ones the first is best, as `argmax` has it.
        best = np.argsort(-scores, axis=1, kind="stable")[:, :top_k]
        return Answer(logits, scores, best, np.take_along_axis(scores, best, axis=1), truncated)

    def tensors(self, triton: Any, answer: Answer, wanted: Collection[str]) -> list[Any]:
        """Triton's tensors of the outputs that are `wanted`, of all if none is."""
        made: dict[str, Callable[[], Any]] = {
            LABEL: lambda: self._names[answer.best],
            SCORE: lambda: answer.best_scores,
            SCORES: lambda: answer.scores,
            LOGITS: lambda: answer.logits,
            TRUNCATED: lambda: np.array(answer.truncated, dtype=np.bool_).reshape(-1, 1),
        }
        return [triton.Tensor(name, make()) for name, make in made.items() if not wanted or name in wanted]

    def told(self, answer: Answer) -> tuple[list[str], list[float]]:
        """Best label of each row and its score, for whoever observes."""
        first, scores = answer.best[:, 0].tolist(), answer.best_scores[:, 0].tolist()
        return [self.labels[number] for number in first], scores
