"""Temperature scaling: one number that makes a model's probabilities mean what they say (Guo et al., ICML 2017).

Logits are divided by the temperature that minimizes the negative log-likelihood on dev. Order and label never change,
and a server pays nothing. Vector scaling and isotonic regression fit better where classes are off in different
directions, but change labels, and overfit a dev split of a few hundred rows.

A model that is right on every dev row would get temperature 0, so the rows count together with one more that is
labelled as the model itself believes. It pulls towards 1: by 0.001 % on the example's 2,352 rows, and so much on a
single row that it can't drive the temperature to the end of its range.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from slipway.errors import ExportError
from slipway.tasks.metrics import expected_calibration_error, softmax

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]

MIN_TEMPERATURE = 0.05
MAX_TEMPERATURE = 20.0
_HALVINGS = 60


@dataclass(frozen=True)
class Calibration:
    """A fitted temperature, and what it did on the rows that it was fitted on (in-sample, but for one parameter)."""

    temperature: float
    loss_before: float
    """Mean negative log-likelihood of the targets, nats."""
    loss_after: float
    ece_before: float
    """Expected calibration error, 0 to 1, 15 bins."""
    ece_after: float


def fit_temperature(logits: FloatArray, targets: IntArray) -> Calibration:
    """The temperature, from 0.05 to 20, for `logits` `[rows, labels]` whose true classes are `targets` `[rows]`.

    The likelihood is convex in 1 / temperature, so its slope has one zero, which is found by bisection.
    Raises `ExportError` if there are no rows or a logit is not finite.
    """
    if len(targets) == 0:
        raise ExportError("dev has no rows, so no temperature can be fitted; give the checkpoint a dev split.")
    if not np.isfinite(logits).all():
        raise ExportError("a logit on dev is not finite, so no temperature can be fitted; this model has overflowed.")
    temperature = 1 / _best_sharpness(logits.astype(np.float64), targets)
    scaled = (logits / np.float32(temperature)).astype(np.float32)
    return Calibration(
        temperature=temperature,
        loss_before=_loss(logits, targets),
        loss_after=_loss(scaled, targets),
        ece_before=expected_calibration_error(softmax(logits), targets),
        ece_after=expected_calibration_error(softmax(scaled), targets),
    )


def _best_sharpness(logits: npt.NDArray[np.float64], targets: IntArray) -> float:
    """1 / temperature where the slope of the loss is 0, or the end of the range nearest to it."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    rows = np.arange(len(targets))

    def expected(sharpness: float) -> npt.NDArray[np.float64]:
        weights = np.exp(sharpness * shifted)
        means: npt.NDArray[np.float64] = (weights * shifted).sum(axis=1) / weights.sum(axis=1)
        return means

    believed = expected(1.0)
    truth = shifted[rows, targets]

    def slope(sharpness: float) -> float:
        now = expected(sharpness)
        return float((now - truth).sum() + (now - believed).mean())

    if slope(1.0) == 0:
        return 1.0
    low, high = 1 / MAX_TEMPERATURE, 1 / MIN_TEMPERATURE
    for _ in range(_HALVINGS):
        middle = float(np.sqrt(low * high))
        low, high = (low, middle) if slope(middle) > 0 else (middle, high)
    return float(np.sqrt(low * high))


def _loss(logits: FloatArray, targets: IntArray) -> float:
    shifted: npt.NDArray[Any] = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    likelihood = shifted[np.arange(len(targets)), targets] - np.log(np.exp(shifted).sum(axis=1))
    return float(-likelihood.mean())
