"""Every metric agrees with scikit-learn's."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference

from slipway.tasks import get_task
from slipway.tasks.metrics import classification_metrics, expected_calibration_error, softmax

pytestmark = pytest.mark.unit


@st.composite
def answers(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, int]:
    classes = draw(st.integers(2, 6))
    rows = draw(st.integers(1, 60))
    seed = draw(st.integers(0, 2**16))
    generator = np.random.default_rng(seed)
    return (
        generator.normal(size=(rows, classes)).astype(np.float32),
        generator.integers(0, classes, rows),
        classes,
    )


@given(answers())
@settings(max_examples=60, deadline=None)
def test_figures_agree_with_scikit_learn(case: tuple[np.ndarray, np.ndarray, int]) -> None:
    logits, targets, classes = case
    predicted = logits.argmax(1)
    labels = [f"label {i}" for i in range(classes)]
    found = classification_metrics(logits, targets, labels)
    assert found["accuracy"] == pytest.approx(reference.accuracy_score(targets, predicted))
    assert found["macro_f1"] == pytest.approx(reference.f1_score(targets, predicted, average="macro", zero_division=0))
    assert found["mcc"] == pytest.approx(reference.matthews_corrcoef(targets, predicted))
    assert found["loss"] == pytest.approx(reference.log_loss(targets, softmax(logits), labels=range(classes)), rel=1e-4)
    assert found["confusion"] == reference.confusion_matrix(targets, predicted, labels=range(classes)).tolist()
    precision, recall, f1, support = reference.precision_recall_fscore_support(
        targets, predicted, labels=range(classes), zero_division=0
    )
    for i, label in enumerate(labels):
        assert found["classes"][label] == pytest.approx(
            {"precision": precision[i], "recall": recall[i], "f1": f1[i], "support": support[i]}
        )


def test_a_model_that_is_right_as_often_as_it_claims_has_no_calibration_error() -> None:
    probabilities = np.tile(np.array([[0.75, 0.25]], dtype=np.float32), (4, 1))
    assert expected_calibration_error(probabilities, np.array([0, 0, 0, 1])) == pytest.approx(0)


def test_a_model_that_is_sure_and_wrong_has_the_largest_calibration_error() -> None:
    probabilities = np.array([[1.0, 0.0]], dtype=np.float32)
    assert expected_calibration_error(probabilities, np.array([1])) == pytest.approx(1)


def test_decoding_gives_the_best_label_and_its_probability() -> None:
    logits = np.array([[0.0, np.log(3.0)], [np.log(3.0), 0.0]], dtype=np.float32)
    labels, scores = get_task("sequence-classification").decode(logits, ["差评", "好评"], 1.0)
    assert labels == ["好评", "差评"]
    assert scores == pytest.approx([0.75, 0.75])


def test_a_temperature_softens_the_score_and_keeps_the_label() -> None:
    logits = np.array([[0.0, 2.0]], dtype=np.float32)
    task = get_task("sequence-classification")
    (label, sharp), (cool_label, soft) = (task.decode(logits, ["a", "b"], temperature) for temperature in (1.0, 2.0))
    assert label == cool_label == ["b"]
    assert soft[0] < sharp[0]


def test_huge_logits_do_not_overflow() -> None:
    assert softmax(np.array([[1e30, 0.0]], dtype=np.float32)).tolist() == [[1.0, 0.0]]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_answers_that_are_not_finite_are_measured_without_a_warning(
    value: float, recwarn: pytest.WarningsRecorder
) -> None:
    logits = np.full((4, 2), value, dtype=np.float32)
    found = classification_metrics(logits, np.array([0, 1, 0, 1]), ["bad", "good"])
    assert np.isnan(found["ece"])
    assert not recwarn.list
