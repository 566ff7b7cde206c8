"""What compression did to each class: an unchanged average can hide a class that was given up."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from slipway.tasks.metrics import confusion_matrix

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ClassChange:
    """One class before and after; F1 from 0 to 1."""

    support: int
    """Rows of the class."""
    before: float
    """F1 of the dense model."""
    after: float
    """F1 of the candidate."""

    @property
    def delta_points(self) -> float:
        """Change of F1 in points; negative if it is lost."""
        return 100 * (self.after - self.before)


def per_class(targets: IntArray, dense: IntArray, candidate: IntArray, labels: Sequence[str]) -> dict[str, ClassChange]:
    """The change of every label. `targets` and both models' answers are class numbers `[rows]`, indices into `labels`.

    The F1 of a class that has no row and is never answered is 0.
    """
    before, after = (_f1(confusion_matrix(answers, targets, len(labels))) for answers in (dense, candidate))
    support = np.bincount(targets, minlength=len(labels))
    return {label: ClassChange(int(support[i]), float(before[i]), float(after[i])) for i, label in enumerate(labels)}


def _f1(confusion: IntArray) -> npt.NDArray[np.float64]:
    both = (confusion.sum(axis=0) + confusion.sum(axis=1)).astype(np.float64)
    return np.divide(2.0 * np.diag(confusion), both, out=np.zeros_like(both), where=both > 0)
