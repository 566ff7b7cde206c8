"""Two commands that would make the same artifact take turns, and a claim leaves nothing behind."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from slipway.claims import claimed

pytestmark = pytest.mark.unit

HOLD = """
import sys
from pathlib import Path
from slipway.claims import claimed
with claimed(Path(sys.argv[1])):
    print("mine", flush=True)
    sys.stdin.read()
"""


def hold(path: Path) -> "subprocess.Popen[str]":
    """Another process that claims `path` until its standard input is closed."""
    return subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_second_process_waits_and_says_so(tmp_path: Path) -> None:
    place = tmp_path / "bundle"
    with claimed(place):
        other = hold(place)
        assert other.stderr is not None
        assert "Waiting for another process" in other.stderr.readline()
        assert other.poll() is None
    printed, _ = other.communicate()
    assert printed == "mine\n"
    assert list(tmp_path.iterdir()) == []


def test_a_killed_holder_keeps_nobody_out(tmp_path: Path) -> None:
    other = hold(tmp_path / "bundle")
    assert other.stdout is not None
    assert other.stdout.readline() == "mine\n"
    os.kill(other.pid, signal.SIGKILL)
    other.communicate()
    with claimed(tmp_path / "bundle"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_artifacts_side_by_side_are_made_at_once(tmp_path: Path) -> None:
    with claimed(tmp_path / "bundle"), claimed(tmp_path / "verdict"):
        pass


def test_folders_stay_only_if_something_came_of_them(tmp_path: Path) -> None:
    with claimed(tmp_path / "runs" / "empty" / "bundle"):
        pass
    assert list(tmp_path.iterdir()) == []
    with claimed(tmp_path / "runs" / "reviews" / "bundle"):
        (tmp_path / "runs" / "reviews" / "bundle").mkdir()
    assert [str(entry.relative_to(tmp_path)) for entry in tmp_path.rglob("*/*")] == [
        "runs/reviews",
        "runs/reviews/bundle",
    ]
