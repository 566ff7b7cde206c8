"""Metrics of a classifier with explicit labels, in numpy.

scikit-learn computes the same; it is not used here because a serving machine and a load generator read these functions
too and must not need it. The tests hold every figure against scikit-learn's.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]


def softmax(logits: FloatArray, temperature: float = 1.0) -> FloatArray:
    """Probabilities `[rows, labels]` of `logits` `[rows, labels]` divided by `temperature`."""
    scaled = logits.astype(np.float32) / np.float32(temperature)
    shifted = np.exp(scaled - scaled.max(axis=-1, keepdims=True))
    result: FloatArray = (shifted / shifted.sum(axis=-1, keepdims=True)).astype(np.float32)
    return result


def confusion_matrix(predicted: IntArray, targets: IntArray, classes: int) -> IntArray:
    """Counts `[classes, classes]`: row = true class, column = predicted class."""
    return np.bincount(targets * classes + predicted, minlength=classes * classes).reshape(classes, classes)


def matthews_correlation(confusion: IntArray) -> float:
    """Matthews correlation coefficient for any number of classes (Gorodkin 2004); 0 where it is undefined."""
    counts = confusion.astype(np.float64)
    correct, total = np.trace(counts), counts.sum()
    true, predicted = counts.sum(axis=1), counts.sum(axis=0)
    spread = np.sqrt((total**2 - predicted @ predicted) * (total**2 - true @ true))
    return float((correct * total - true @ predicted) / spread) if spread else 0.0


def expected_calibration_error(probabilities: FloatArray, targets: IntArray, bins: int = 15) -> float:
    """Gap between confidence and accuracy, averaged over equal-width confidence bins (Guo et al. 2017)."""
    confidence = probabilities.max(axis=1)
    if not np.isfinite(confidence).all():
        return float("nan")
    correct = probabilities.argmax(axis=1) == targets
    index = np.minimum((confidence * bins).astype(int), bins - 1)
    gap = 0.0
    for chosen in range(bins):
        inside = index == chosen
        if inside.any():
            gap += float(inside.mean()) * abs(float(correct[inside].mean()) - float(confidence[inside].mean()))
    return gap


def classification_metrics(logits: FloatArray, targets: IntArray, labels: Sequence[str]) -> dict[str, Any]:
    """Accuracy, macro-F1, MCC, ECE, cross-entropy, the class report and the confusion matrix.

    Args:
        logits: `[rows, labels]`.
        targets: class numbers `[rows]`, indices into `labels`.
        labels: the names; a class that has no row counts with F1 0 in no average (it is left out of macro-F1).

    Of logits that are not finite, ECE and cross-entropy are no numbers; who asked refuses the model in words.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        probabilities = softmax(logits)
    predicted = logits.argmax(axis=1).astype(np.int64)
    confusion = confusion_matrix(predicted, targets, len(labels))
    hits = np.diag(confusion).astype(np.float64)
    support, claimed = confusion.sum(axis=1), confusion.sum(axis=0)
    precision = np.divide(hits, claimed, out=np.zeros_like(hits), where=claimed > 0)
    recall = np.divide(hits, support, out=np.zeros_like(hits), where=support > 0)
    both = precision + recall
    f1 = np.divide(2 * precision * recall, both, out=np.zeros_like(both), where=both > 0)
    seen = (support + claimed) > 0
    likelihood = np.clip(probabilities[np.arange(len(targets)), targets], 1e-12, None)
    return {
        "rows": len(targets),
        "accuracy": float(hits.sum() / max(len(targets), 1)),
        "macro_f1": float(f1[seen].mean()) if seen.any() else 0.0,
        "mcc": matthews_correlation(confusion),
        "ece": expected_calibration_error(probabilities, targets),
        "loss": float(-np.log(likelihood).mean()),
        "majority_accuracy": float(support.max() / max(len(targets), 1)),
        "classes": {
            label: {
                "precision": float(precision[i]),
                "recall": float(recall[i]),
                "f1": float(f1[i]),
                "support": int(support[i]),
            }
            for i, label in enumerate(labels)
        },
        "confusion": confusion.tolist(),
    }
