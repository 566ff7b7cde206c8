"""A loss is called real only if dev can tell it from chance, and the figures are those of the ordinary metrics."""

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from export.evaluation.classes import per_class
from export.evaluation.significance import METRICS, compare, mcnemar, metric_interval
from slipway.errors import ExportError
from slipway.tasks.metrics import classification_metrics

pytestmark = pytest.mark.unit

IntArray = npt.NDArray[np.int64]


def answers(rows: int, classes: int = 3, right: float = 0.85, seed: int = 0) -> tuple[IntArray, IntArray]:
    """Targets, and a model's answers to them."""
    random = np.random.default_rng(seed)
    targets = random.integers(0, classes, rows)
    return targets, np.where(random.random(rows) < right, targets, random.integers(0, classes, rows))


def changed(predicted: IntArray, share: float, classes: int = 3, seed: int = 1) -> IntArray:
    """The answers of a model that agrees on all but `share` of the rows, or a little less."""
    random = np.random.default_rng(seed)
    other = random.integers(0, classes, len(predicted))
    result: IntArray = np.where(random.random(len(predicted)) < share, other, predicted)
    return result


def scores(predicted: IntArray, targets: IntArray, classes: int) -> dict[str, float]:
    logits = np.eye(classes, dtype=np.float32)[predicted]
    return classification_metrics(logits, targets, [str(number) for number in range(classes)])


@given(
    rows=st.lists(st.tuples(*[st.integers(0, 3)] * 3), min_size=1, max_size=30),
    metric=st.sampled_from(sorted(METRICS)),
)
@settings(deadline=None)
def test_the_loss_is_the_difference_of_the_metrics_that_are_reported(
    rows: list[tuple[int, int, int]], metric: str
) -> None:
    targets, dense, candidate = np.array(rows, dtype=np.int64).T
    expected = 100 * (scores(dense, targets, 4)[metric] - scores(candidate, targets, 4)[metric])
    found = compare(targets, dense, candidate, metric=metric, classes=4, resamples=50)
    assert found.loss_points == pytest.approx(expected, abs=1e-9)
    assert 0 < found.p_value <= 1
    assert found.low <= found.high


@pytest.mark.parametrize("metric", METRICS)
def test_identical_answers_lose_nothing(metric: str) -> None:
    targets, dense = answers(500)
    found = compare(targets, dense, dense.copy(), metric=metric, classes=3)
    assert (found.loss_points, found.low, found.high, found.standard_error, found.p_value) == (0, 0, 0, 0, 1)
    assert not found.measurable


@pytest.mark.parametrize("metric", METRICS)
def test_a_large_loss_is_measurable_and_the_gain_in_the_other_direction_is_none(metric: str) -> None:
    targets, dense = answers(2000)
    worse = changed(dense, 0.1)
    found = compare(targets, dense, worse, metric=metric, classes=3)
    assert found.measurable
    assert 0 < found.low < found.loss_points < found.high
    back = compare(targets, worse, dense, metric=metric, classes=3)
    assert back.loss_points == pytest.approx(-found.loss_points)
    assert back.p_value > 0.99
    assert not back.measurable


@pytest.mark.parametrize("metric", METRICS)
def test_one_row_proves_nothing(metric: str) -> None:
    found = compare(np.array([1]), np.array([1]), np.array([0]), metric=metric, classes=3)
    assert found.p_value >= 0.5
    assert not found.measurable


def test_cells_give_the_spread_that_drawing_rows_gives() -> None:
    targets, dense = answers(400)
    candidate = changed(dense, 0.15)
    random = np.random.default_rng(7)
    losses = []
    for _ in range(1500):
        rows = random.integers(0, 400, 400)
        before, after = (scores(model[rows], targets[rows], 3)["macro_f1"] for model in (dense, candidate))
        losses.append(100 * (before - after))
    found = compare(targets, dense, candidate, metric="macro_f1", classes=3, resamples=4000)
    assert found.standard_error == pytest.approx(np.std(losses), rel=0.08)
    assert [found.low, found.high] == pytest.approx(np.quantile(losses, [0.025, 0.975]).tolist(), abs=0.35)


def test_the_standard_error_of_accuracy_is_the_one_of_the_formula() -> None:
    targets, dense = answers(3000)
    candidate = changed(dense, 0.08)
    difference = (dense == targets).astype(float) - (candidate == targets)
    found = compare(targets, dense, candidate, metric="accuracy", classes=3, resamples=5000)
    assert found.standard_error == pytest.approx(100 * difference.std() / math.sqrt(3000), rel=0.05)


def test_models_that_differ_only_by_chance_are_called_different_as_often_as_promised() -> None:
    alarms = 0
    for seed in range(200):
        targets, dense = answers(300, seed=seed)
        _, candidate = answers(300, seed=seed)
        random = np.random.default_rng(1000 + seed)
        swap = random.random(300) < 0.1
        other = np.where(random.random(300) < 0.85, targets, (targets + 1) % 3)
        same = np.where(random.random(300) < 0.85, targets, (targets + 1) % 3)
        dense, candidate = np.where(swap, other, dense), np.where(swap, same, candidate)
        alarms += compare(targets, dense, candidate, metric="macro_f1", classes=3, resamples=400).measurable
    assert alarms <= 20, "5 % of 200 are 10; 20 is three standard deviations away"


def test_the_same_seed_gives_the_same_interval() -> None:
    targets, dense = answers(500)
    first, again, other = (
        compare(targets, dense, changed(dense, 0.1), metric="mcc", classes=3, seed=seed) for seed in (5, 5, 6)
    )
    assert first == again
    assert first.low != other.low


def test_several_seeds_of_the_dense_model_count_by_their_mean() -> None:
    targets, first = answers(800, seed=0)
    second = changed(first, 0.05, seed=3)
    candidate = changed(first, 0.1)
    runs = [scores(model, targets, 3)["accuracy"] for model in (first, second)]
    found = compare(targets, np.stack([first, second]), candidate, metric="accuracy", classes=3)
    assert found.loss_points == pytest.approx(100 * (np.mean(runs) - scores(candidate, targets, 3)["accuracy"]))
    assert found.test == "bootstrap"
    assert compare(targets, first, candidate, metric="accuracy", classes=3).test == "mcnemar"


def test_a_class_without_rows_and_a_constant_model_are_no_obstacle() -> None:
    targets = np.array([0, 0, 1, 1] * 20)
    found = compare(targets, targets, np.zeros_like(targets), metric="mcc", classes=5)
    assert found.loss_points == pytest.approx(100)
    assert found.measurable
    assert compare(targets, targets, np.full_like(targets, 4), metric="macro_f1", classes=5).loss_points == 100


def test_no_rows_and_unknown_metrics_are_refused() -> None:
    none = np.zeros(0, dtype=np.int64)
    with pytest.raises(ExportError, match="dev has no rows"):
        compare(none, none, none, metric="accuracy", classes=2)
    with pytest.raises(ExportError, match="allowed: accuracy, macro_f1, mcc"):
        metric_interval(np.array([0]), np.array([0]), metric="bleu", classes=2)


@pytest.mark.parametrize("metric", METRICS)
def test_the_interval_of_one_model_holds_its_metric_and_narrows_with_rows(metric: str) -> None:
    widths = []
    for rows in (200, 20_000):
        targets, predicted = answers(rows)
        low, high = metric_interval(targets, predicted, metric=metric, classes=3)
        assert low < scores(predicted, targets, 3)[metric] < high
        widths.append(high - low)
    assert widths[0] / widths[1] == pytest.approx(10, rel=0.25)


@pytest.mark.parametrize(
    ("lost", "gained", "p_value"),
    [(0, 0, 1.0), (1, 0, 0.5), (5, 0, 1 / 32), (0, 5, 1.0), (2, 1, 0.5), (8, 2, 56 / 1024)],
)
def test_mcnemar_is_exact(lost: int, gained: int, p_value: float) -> None:
    targets = np.zeros(lost + gained + 10, dtype=np.int64)
    dense, candidate = targets.copy(), targets.copy()
    candidate[:lost] = 1
    dense[lost : lost + gained] = 1
    found = mcnemar(targets, dense, candidate)
    assert (found.lost, found.gained) == (lost, gained)
    assert found.p_value == pytest.approx(p_value)


def test_mcnemar_takes_many_rows() -> None:
    targets = np.zeros(200_000, dtype=np.int64)
    dense, candidate = targets.copy(), targets.copy()
    candidate[:50_500] = 1
    dense[50_500:100_000] = 1
    z = (50_500 - 49_500 - 1) / math.sqrt(100_000)
    assert mcnemar(targets, dense, candidate).p_value == pytest.approx(math.erfc(z / math.sqrt(2)) / 2, rel=1e-3)


def test_the_change_of_each_class_is_that_of_its_reported_f1() -> None:
    targets, dense = answers(300)
    candidate = np.where(dense == 2, 1, dense)
    labels = ["bad", "fair", "good", "absent"]
    change = per_class(targets, dense, candidate, labels)
    for predicted, name in ((dense, "before"), (candidate, "after")):
        logits = np.eye(4, dtype=np.float32)[predicted]
        reported = classification_metrics(logits, targets, labels)["classes"]
        assert {label: getattr(change[label], name) for label in labels} == pytest.approx(
            {label: reported[label]["f1"] for label in labels}
        )
    assert change["good"].after == 0
    assert change["good"].delta_points == pytest.approx(-100 * change["good"].before)
    assert change["absent"].support == change["absent"].delta_points == 0
