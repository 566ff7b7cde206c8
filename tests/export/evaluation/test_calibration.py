"""One temperature makes confidences honest and never changes a label."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from export.evaluation.calibration import MAX_TEMPERATURE, MIN_TEMPERATURE, fit_temperature
from slipway.errors import ExportError
from slipway.tasks.metrics import classification_metrics, softmax

pytestmark = pytest.mark.unit

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]


def honest(rows: int, classes: int = 3) -> tuple[FloatArray, IntArray]:
    """Logits, and targets drawn with exactly the probabilities that they state."""
    random = np.random.default_rng(0)
    logits = random.normal(0, 2, (rows, classes)).astype(np.float32)
    cumulated = softmax(logits).cumsum(axis=1)
    return logits, (random.random((rows, 1)) > cumulated[:, :-1]).sum(axis=1)


@pytest.mark.parametrize("overconfidence", [0.3, 1.0, 3.0, 8.0])
def test_the_temperature_that_was_applied_is_found(overconfidence: float) -> None:
    logits, targets = honest(20_000)
    found = fit_temperature(logits * np.float32(overconfidence), targets)
    assert found.temperature == pytest.approx(overconfidence, rel=0.04)
    assert found.loss_after <= found.loss_before + 1e-9
    assert found.ece_after < 0.02


def test_an_overconfident_model_is_mended_and_the_figures_are_the_reported_ones() -> None:
    logits, targets = honest(3000)
    logits = logits * np.float32(4)
    found = fit_temperature(logits, targets)
    labels = ["a", "b", "c"]
    before = classification_metrics(logits, targets, labels)
    after = classification_metrics((logits / np.float32(found.temperature)).astype(np.float32), targets, labels)
    assert (found.ece_before, found.ece_after) == pytest.approx((before["ece"], after["ece"]), abs=1e-6)
    assert found.loss_after == pytest.approx(after["loss"], rel=1e-4)
    assert found.ece_after < found.ece_before / 4


def test_no_other_temperature_is_likelier() -> None:
    logits, targets = honest(2000)
    found = fit_temperature(logits * np.float32(2.5), targets)
    for factor in (0.97, 1.03):
        other = (logits * np.float32(2.5 / (found.temperature * factor))).astype(np.float32)
        assert classification_metrics(other, targets, ["a", "b", "c"])["loss"] > found.loss_after


@settings(deadline=None)
@given(
    logits=st.lists(st.lists(st.floats(-30, 30, width=32), min_size=3, max_size=3), min_size=1, max_size=12),
    data=st.data(),
)
def test_any_logits_give_a_temperature_in_range_and_the_same_labels(
    logits: list[list[float]], data: st.DataObject
) -> None:
    array = np.array(logits, dtype=np.float32)
    targets = np.array(data.draw(st.lists(st.integers(0, 2), min_size=len(logits), max_size=len(logits))))
    found = fit_temperature(array, targets)
    assert MIN_TEMPERATURE * 0.999 <= found.temperature <= MAX_TEMPERATURE * 1.001
    chosen = array.argmax(axis=1)
    scaled = array / np.float32(found.temperature)
    assert (scaled[np.arange(len(chosen)), chosen] == scaled.max(axis=1)).all()


def test_a_model_that_is_always_right_is_not_taken_to_be_certain() -> None:
    targets = np.arange(900) % 3
    found = fit_temperature((8 * np.eye(3, dtype=np.float32))[targets], targets)
    assert 0.4 < found.temperature < 1


@pytest.mark.parametrize(("target", "lowest", "highest"), [(0, 0.7, 1.0), (1, 2.0, 15.0)])
def test_a_single_row_moves_the_temperature_without_running_away(target: int, lowest: float, highest: float) -> None:
    found = fit_temperature(np.array([[5, 0, 0]], dtype=np.float32), np.array([target]))
    assert lowest < found.temperature < highest


def test_logits_that_say_nothing_stay_as_they_are() -> None:
    assert fit_temperature(np.zeros((5, 3), dtype=np.float32), np.array([0, 1, 2, 0, 1])).temperature == 1


def test_no_rows_and_overflowed_logits_are_refused() -> None:
    with pytest.raises(ExportError, match="dev has no rows"):
        fit_temperature(np.zeros((0, 3), dtype=np.float32), np.zeros(0, dtype=np.int64))
    with pytest.raises(ExportError, match="not finite"):
        fit_temperature(np.array([[np.inf, 0]], dtype=np.float32), np.array([0]))
