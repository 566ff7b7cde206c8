"""Progress without a terminal is plain lines; what is quick says nothing."""

import subprocess
import sys

import pytest

from slipway import progress as module
from slipway.progress import progress, track

pytestmark = pytest.mark.unit


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


def test_a_long_step_says_how_far_it_is_and_what_is_left(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with progress("Training", 100) as advance:
        for _ in range(100):
            clock.now += 1
            advance(1, note="loss 0.5")
    lines = capsys.readouterr().err.splitlines()
    assert lines[1].split() == ["Training:", "10%,", "90", "s", "left,", "loss", "0.5"]
    assert lines[-1] == "Training: done in 100 s"


def test_slow_preparations_do_not_spoil_the_forecast(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with progress("Training", 100) as advance:
        clock.now += 1000
        for _ in range(10):
            advance(1)
            clock.now += 1
    # Five more units took five seconds, so 94 more take 94.
    assert "94 s left" in capsys.readouterr().err


def test_a_quick_step_says_nothing(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    assert list(track([1, 2, 3], "Reading")) == [1, 2, 3]
    assert capsys.readouterr().err == ""


def test_a_log_file_gets_no_control_characters() -> None:
    code = "from slipway.progress import *\nwith progress('x', 2) as advance: advance(1)\nsay('[bold]done[/]')"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stderr == "[bold]done[/]\n"
