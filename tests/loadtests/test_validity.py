"""May the figures be believed?"""

from typing import Any

import pytest

from loadtests.validity import why_invalid
from loadtests.vitals import Clocks, Vitals
from slipway.recipe import LoadTest
from slipway.verdict import Generator

pytestmark = pytest.mark.unit

WELL: dict[str, Any] = {
    "sending_cpu": 0.3,
    "process_cpu": 0.5,
    "longest_stall_ms": 20.0,
    "longest_collection_ms": 5.0,
    "clock_jump_s": 0.0,
    "suspended_s": 0.0,
    "exhausted": 0,
    "unsent": 0,
}


def generator(**values: Any) -> Generator:
    return Generator.model_validate(WELL | values)


def test_a_generator_that_does_well_is_believed() -> None:
    assert why_invalid(LoadTest(), 3.0, [generator(), generator()]) == []


@pytest.mark.parametrize(
    ("ill", "reason"),
    [
        ({"sending_cpu": 0.97}, "was saturated"),
        ({"longest_stall_ms": 2500.0}, r"stood still for 2\.5 s"),
        ({"clock_jump_s": 3600.0}, r"clock was set by 3600\.00 s"),
        ({"suspended_s": 40.0}, r"machine was suspended for 40\.0 s"),
        ({"exhausted": 3}, "3 requests failed because this machine ran out of sockets"),
        ({"unsent": 12}, "never sent 12 requests"),
        ({"host": "pod-1", "longest_stall_ms": 2500.0}, r"The load generator on pod-1 stood still"),
        ({"host": "pod-1", "start_error_ms": 30.0}, r"pod-1 may have begun 30 ms apart from the others"),
        ({"host": "pod-1", "clock_drift_ms": 2000.0}, r"clock of pod-1 ran away from the master's by 2\.0 s"),
    ],
)
def test_one_generator_that_does_not_spoils_the_run(ill: dict[str, float], reason: str) -> None:
    with pytest.raises(AssertionError, match=reason):
        assert why_invalid(LoadTest(), 3.0, [generator(), generator(**ill)]) == []


def test_a_late_generator_is_named_with_its_lag() -> None:
    (reason,) = why_invalid(LoadTest(), 33.3, [generator()])
    assert "p99 of its lag is 33.3 ms, at most 20 ms allowed" in reason


def vitals_over(*readings: Clocks) -> Generator:
    remaining = iter(readings)
    vitals = Vitals(lambda: next(remaining))
    for _ in readings[1:]:
        vitals.look()
    return vitals.summary(0)


def test_a_clock_that_is_set_forth_or_back_is_seen() -> None:
    for jump in (5.0, -5.0):
        seen = vitals_over(Clocks(1.0, 100.0, 1.0), Clocks(2.0, 101.0, 2.0), Clocks(3.0, 102.0 + jump, 3.0))
        assert seen.clock_jump_s == pytest.approx(5.0)
        assert seen.suspended_s == pytest.approx(0.0)


def test_a_suspended_machine_is_seen_and_its_clock_not_blamed() -> None:
    seen = vitals_over(Clocks(1.0, 100.0, 1.0), Clocks(2.0, 161.0, 62.0))
    assert seen.suspended_s == pytest.approx(60.0)
    assert seen.clock_jump_s == pytest.approx(0.0)


def test_a_clock_that_ntp_slews_is_no_jump() -> None:
    readings = [Clocks(second, 100 + second * 1.0005, second) for second in map(float, range(100))]
    assert vitals_over(*readings).clock_jump_s < 0.001


def test_the_longest_stall_and_collection_are_kept() -> None:
    vitals = Vitals()
    for seconds in (0.01, 1.5, 0.02):
        vitals.stood_still(seconds)
    vitals.collected("start", {})
    vitals.collected("stop", {})
    assert vitals.summary(2).longest_stall_ms == 1500
    assert vitals.summary(2).unsent == 2
