"""Ratios with intervals, on sides whose true ratio is known."""

import numpy as np
import pytest

from loadtests.bootstrap import Measured, ratios
from slipway.comparison import Ratio

pytestmark = pytest.mark.unit


def pairs_of(
    ratio: float, pairs: int, seed: int, drift: float = 0.3, noise: float = 0.05
) -> list[tuple[Measured, Measured]]:
    """B is `ratio` times as slow as A; the machine drifts from pair to pair and wavers from block to block."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(pairs):
        machine = np.exp(rng.normal(0, drift))
        a, b = (
            Measured(8 * factor * machine * np.exp(rng.normal(0, noise) + rng.normal(0, 0.3, 100)), 100, 3.0)
            for factor in (1.0, ratio)
        )
        found.append((a, b))
    return found


def of(found: list[Ratio], figure: str) -> Ratio:
    return next(ratio for ratio in found if ratio.figure == figure)


def test_a_ratio_is_found_through_a_drifting_machine() -> None:
    p50 = of(ratios(pairs_of(1.3, 12, seed=3), 0.95), "p50")
    assert p50.ratio == pytest.approx(1.3, rel=0.06)
    assert p50.low < 1.3 < p50.high
    assert p50.differs


def test_a_side_against_itself_shows_no_difference() -> None:
    pairs = [(a, a) for a, _ in pairs_of(1.0, 8, seed=1)]
    for ratio in ratios(pairs, 0.95):
        assert (ratio.low, ratio.ratio, ratio.high) == (1, 1, 1)
        assert not ratio.differs


def test_swapping_the_sides_inverts_the_ratio() -> None:
    pairs = pairs_of(1.5, 8, seed=2)
    there = of(ratios(pairs, 0.95), "p50")
    back = of(ratios([(b, a) for a, b in pairs], 0.95), "p50")
    assert there.ratio * back.ratio == pytest.approx(1)
    assert there.low * back.high == pytest.approx(1, rel=1e-3)


@pytest.mark.parametrize("pairs", [4, 12])
def test_the_interval_holds_the_ratio_as_often_as_it_says(pairs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loadtests.bootstrap._DRAWS", 1000)
    held = 0
    trials = 30
    for seed in range(trials):
        p50 = of(ratios(pairs_of(1.2, pairs, seed, drift=0.1), 0.9), "p50")
        held += p50.low <= 1.2 <= p50.high
    # Four standard errors below the 0.9 that is promised.
    assert held / trials >= 0.9 - 4 * (0.09 / trials) ** 0.5


def test_throughput_is_of_correct_answers() -> None:
    block = np.full(100, 5.0)
    pairs = [(Measured(block, 100, 1.0), Measured(block, 80, 1.0))] * 5
    assert of(ratios(pairs, 0.95), "throughput").ratio == pytest.approx(0.8)


def test_a_side_that_answers_nothing_has_no_ratio_the_other_way() -> None:
    block = np.full(100, 5.0)
    pairs = [(Measured(block, 0, 1.0), Measured(block, 80, 1.0))] * 5
    assert not any(ratio.figure == "throughput" for ratio in ratios(pairs, 0.95))
