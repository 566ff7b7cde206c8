"""A search that is stopped writes no bundle, and goes on from what it has finished."""

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from slipway.artifacts import Artifact, read_artifact

pytestmark = [pytest.mark.integration, pytest.mark.slow]


def search(checkpoint: Path) -> subprocess.Popen[str]:
    options = ["--budget", "30", "--engine", "onnxruntime"]
    command = [sys.executable, "-m", "slipway", "export", str(checkpoint), *options]
    return subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_stopped_search_goes_on_from_there(tiny_checkpoint: Artifact, tmp_path: Path, number: signal.Signals) -> None:
    checkpoint = tmp_path / "checkpoint"
    shutil.copytree(tiny_checkpoint.path, checkpoint)
    with search(checkpoint) as first:
        assert first.stderr is not None
        assert any("c20: 20%" in line for line in first.stderr)
        first.send_signal(number)
        said = first.stderr.read()
    assert first.returncode == (130 if number == signal.SIGINT else -signal.SIGKILL)
    assert "Traceback" not in said
    assert not (tmp_path / "bundle").exists()
    (work,) = tmp_path.glob(".bundle.search-*")
    made = {file: file.stat().st_mtime_ns for file in work.glob("variants/*/made.json")}
    assert made, "the dense variants were finished"
    with search(checkpoint) as second:
        assert second.stderr is not None
        said = second.stderr.read()
    assert second.returncode == 0, said
    assert read_artifact(tmp_path / "bundle").manifest.kind == "bundle"
    assert {file: file.stat().st_mtime_ns for file in made} == made
