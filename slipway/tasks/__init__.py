"""What a task means, without torch: its labels, tensor signature, decoding of logits and metrics.

Adding a task is adding a module with a `Task` and one line in `TASKS`; nothing else asks which task it is.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from slipway.errors import RecipeError
from slipway.tasks.classification import SequenceClassification

FloatArray = npt.NDArray[np.float32]


class Task(Protocol):
    """What a stage may ask of a task."""

    name: str
    auto_model: str
    """Name of the `transformers` auto class that loads a base for this task."""
    export_task: str
    """Name of the task in the exporter's vocabulary."""
    metrics: tuple[str, ...]
    """Metrics that a recipe may select a checkpoint by; higher is better for each."""

    def decode(self, logits: FloatArray, labels: Sequence[str], temperature: float) -> tuple[list[str], FloatArray]:
        """Logits `[batch, labels]` to the best label and its score for each row."""

    def probabilities(self, logits: FloatArray, temperature: float) -> FloatArray:
        """Calibrated score of every label `[batch, labels]` from logits `[batch, labels]`."""

    def merge(self, logits: FloatArray, weights: Sequence[int], temperature: float) -> FloatArray:
        """Logits `[labels]` of a text from those of its windows `[windows, labels]` and what each adds, in tokens."""

    def evaluate(self, logits: FloatArray, targets: npt.NDArray[np.int64], labels: Sequence[str]) -> dict[str, Any]:
        """Metrics of `logits` `[rows, labels]` against class numbers `[rows]`."""


TASKS: dict[str, Task] = {task.name: task for task in (SequenceClassification(),)}


def get_task(name: str) -> Task:
    """The task called `name`."""
    try:
        return TASKS[name]
    except KeyError:
        raise RecipeError(f"task {name!r} is not known; known are: {', '.join(sorted(TASKS))}.") from None
