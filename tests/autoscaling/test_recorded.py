"""What a real kube-controller-manager decided is decided again, from its manifests and from what it saw.

The traces are recorded by `benchmarks/kubernetes/record.py`; `controller.json` has versions and flags.
"""

import json
import re
from pathlib import Path

import pytest

from autoscaling.hpa import Controller
from autoscaling.manifest import Scaler
from autoscaling.recommendation import CpuReadiness
from autoscaling.replay import replay
from benchmarks.kubernetes.scenarios import scenarios

pytestmark = pytest.mark.unit

TRACES = Path(__file__).parent / "traces"
NAMES = sorted(file.stem for file in TRACES.glob("*.jsonl"))


def recorded_controller() -> Controller:
    flags = json.loads((TRACES / "controller.json").read_text(encoding="utf-8"))["flags"]
    seconds = {
        name.removeprefix("horizontal-pod-autoscaler-"): int(re.fullmatch(r"(\d+)s", value)[1])  # type: ignore[index]
        for name, value in flags.items()
    }
    readiness = CpuReadiness(seconds["cpu-initialization-period"], seconds["initial-readiness-delay"])
    return Controller(downscale_stabilization_s=seconds["downscale-stabilization"], readiness=readiness)


def test_every_scenario_has_its_trace() -> None:
    assert [scenario.name for scenario in sorted(scenarios({}), key=lambda each: each.name)] == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_real_controllers_decisions_are_made_again(name: str) -> None:
    scaler = Scaler.read(TRACES / f"{name}.yaml", recorded_controller())
    steps = list(replay(scaler, TRACES / f"{name}.jsonl"))
    assert [(step.at_s, step.recorded, step.wanted) for step in steps if not step.agrees] == []
    assert all(step.recorded is not None for step in steps)
    assert len({step.recorded for step in steps}) > 1, "nothing was scaled"
