"""How much is left is told from what the finished steps took."""

import pytest

from export.search.agenda import Agenda

pytestmark = pytest.mark.unit


def test_what_is_left_goes_by_the_pace_so_far() -> None:
    now = 100.0
    agenda = Agenda(clock=lambda: now)
    agenda.add("dense", 10.0)
    agenda.add("student", 60.0)
    agenda.add("speeds", 30.0)
    assert str(agenda) == "0 of 3"
    now = 120.0  # twice as slow as expected
    agenda.finish("dense")
    assert str(agenda) == "1 of 3, about 3 min left"
    agenda.finish("student")
    assert str(agenda) == "2 of 3, about 9 s left"


def test_a_step_that_is_left_out_no_longer_counts() -> None:
    agenda = Agenda(clock=lambda: 1.0)
    agenda.add("one", 1.0)
    agenda.add("two", 1.0)
    agenda.finish("one")
    agenda.finish("two")
    assert str(agenda) == "2 of 2, about 0 s left"
