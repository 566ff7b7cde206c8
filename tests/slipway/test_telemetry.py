"""Nothing phones home."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration


def test_onnx_runtime_starts_no_telemetry_session(tmp_path: Path) -> None:
    # A session of its telemetry leaves a file in the folder for temporary files; CI variables silence it by themselves.
    quiet = {"CI", "ORT_DISABLE_TELEMETRY", "ORT_RUNNING_UNIT_TESTS", "GITHUB_ACTIONS"}
    environment = {name: value for name, value in os.environ.items() if name not in quiet} | {"TMPDIR": str(tmp_path)}
    command = [sys.executable, "-c", "import slipway, onnxruntime"]
    subprocess.run(command, env=environment, check=True)
    assert list(tmp_path.iterdir()) == []
