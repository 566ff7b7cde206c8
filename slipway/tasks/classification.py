"""Sequence classification: one text, one label of a fixed set."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from slipway.tasks.metrics import classification_metrics, softmax

FloatArray = npt.NDArray[np.float32]

_LEAST = np.finfo(np.float32).tiny


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

    def probabilities(self, logits: FloatArray, temperature: float = 1.0) -> FloatArray:
        """Softmax of the logits over the temperature."""
        return softmax(logits, temperature)

    def merge(self, logits: FloatArray, weights: Sequence[int], temperature: float = 1.0) -> FloatArray:
        """The mean of the windows' probabilities, weighted by the tokens that each adds; as logits again.

        The mean of the logits (a product of experts) would let one window that is sure beyond reason, as an int8 model
        is on a short rest of a text, outvote all others; in a mean of probabilities no window has more than its share,
        and the result stays between what the windows say. The logits are those whose softmax it is.
        """
        if len(logits) == 1:
            only: FloatArray = logits[0]
            return only
        shares = np.asarray(weights, dtype=np.float32) / np.float32(sum(weights))
        mean = shares @ softmax(logits, temperature)
        result: FloatArray = (np.log(np.maximum(mean, _LEAST)) * np.float32(temperature)).astype(np.float32)
        return result

    def evaluate(self, logits: FloatArray, targets: npt.NDArray[np.int64], labels: Sequence[str]) -> dict[str, Any]:
        """See `slipway.tasks.metrics.classification_metrics`."""
        return classification_metrics(logits, targets, labels)
