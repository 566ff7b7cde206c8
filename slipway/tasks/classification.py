"""Sequence classification: one text, one label of a fixed set."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from slipway.tasks.metrics import classification_metrics, softmax

FloatArray = npt.NDArray[np.float32]


class SequenceClassification:
    """One label for a text; the score is the softmax probability of that label."""

    name = "sequence-classification"
    auto_model = "AutoModelForSequenceClassification"
    export_task = "text-classification"
    metrics: tuple[str, ...] = ("accuracy", "macro_f1", "mcc")

    def decode(
        self, logits: FloatArray, labels: Sequence[str], temperature: float = 1.0
    ) -> tuple[list[str], FloatArray]:
        """Best label and its probability for each row of `logits` `[batch, labels]`."""
        probabilities = softmax(logits, temperature)
        best = probabilities.argmax(axis=1)
        return [labels[i] for i in best], probabilities[np.arange(len(best)), best]

    def evaluate(self, logits: FloatArray, targets: npt.NDArray[np.int64], labels: Sequence[str]) -> dict[str, Any]:
        """See `slipway.tasks.metrics.classification_metrics`."""
        return classification_metrics(logits, targets, labels)
