"""Workers that begin at one moment."""

import pytest

from loadtests.clock import begins_at
from slipway.errors import LoadTestError

pytestmark = pytest.mark.unit


def test_a_moment_ahead_is_converted_to_the_machines_own_clock() -> None:
    assert begins_at(1000.7, 1000.0, 50.0) == pytest.approx(50.7)


@pytest.mark.parametrize("off", [-0.1, -3600.0, 60.0])
def test_a_clock_that_does_not_agree_is_named(off: float) -> None:
    with pytest.raises(LoadTestError, match="Set the clocks of all machines by NTP"):
        begins_at(1000.0 + off, 1000.0, 50.0)
