"""Workers that begin at one moment, whatever their clocks say."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtests.clock import Offset, Reading, begins_at, offset_of
from slipway.errors import LoadTestError

pytestmark = pytest.mark.unit

DELAY = st.floats(0, 5)


@given(
    ahead=st.floats(-1e6, 1e6),
    ways=st.lists(st.tuples(DELAY, DELAY), min_size=1, max_size=20),
)
def test_the_other_clock_is_known_to_half_of_the_shortest_round_trip(
    ahead: float, ways: list[tuple[float, float]]
) -> None:
    readings = [Reading(at, at + there + ahead, at + there + back) for at, (there, back) in enumerate(ways)]
    found = offset_of(readings, same_machine=False)
    assert found.error_s == pytest.approx(min(there + back for there, back in ways) / 2, abs=1e-6)
    assert abs(found.ahead_s - ahead) <= found.error_s + 1e-6


def test_one_machine_has_one_clock() -> None:
    reading = Reading(10.0, 10.0004, 10.001)
    assert offset_of([reading], same_machine=True) == Offset(0.0, 0.0)
    assert offset_of([reading], same_machine=False).error_s == pytest.approx(0.0005)


def test_a_namespace_may_give_one_machine_two_clocks() -> None:
    shifted = Reading(10.0, 3610.0005, 10.001)
    assert offset_of([shifted], same_machine=True).ahead_s == pytest.approx(3600.0)


def test_a_moment_ahead_is_converted_to_this_machines_own_clock() -> None:
    assert begins_at(1000.7, Offset(950.0, 0.0), 50.0) == pytest.approx(50.7)


def test_a_word_to_begin_that_comes_late_is_an_error() -> None:
    with pytest.raises(LoadTestError, match=r"came 0\.5 s late"):
        begins_at(1000.0, Offset(950.0, 0.0), 50.5)
