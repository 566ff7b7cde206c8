"""An ensemble behind the front door: it answers, and a step whose process dies is brought back."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

import serving
from slipway.bundle import Bundle
from slipway.errors import ServingError
from slipway.processes import marked_processes
from slipway.recipe import Serve
from tests.serving.conftest import eventually
from tests.tiny_bundle import CHECK_TEXTS, write_tiny_bundle

pytestmark = [pytest.mark.integration]

STEPS = ("tokenize", "encoder", "decode")


@pytest.fixture(scope="module")
def ensemble(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[serving.Endpoint]:
    section = Serve(port=0, layout="ensemble", instances=1, timeout_s=5.0)
    repository = serving.write_repository(bundle, tmp_path_factory.mktemp("ensemble") / "repository", section)
    with serving.start(repository.path, section) as endpoint:
        yield endpoint


def stubs(endpoint: serving.Endpoint) -> dict[str, psutil.Process]:
    """Live model processes by the model that they run."""
    found = {}
    for process in marked_processes(endpoint.access_log.parent.name):
        with contextlib.suppress(psutil.Error):
            command = " ".join(process.cmdline()) if process.status() != psutil.STATUS_ZOMBIE else ""
            for name in STEPS:
                if "triton_python_backend_stub" in command and f"tiny_{name}" in command:
                    found[name] = process
    return found


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_it_answers_through_the_front_door(ensemble: serving.Endpoint, bundle: Bundle, protocol: Any) -> None:
    with serving.Client(ensemble.address, ensemble.model, protocol) as client:
        answers = client.classify(CHECK_TEXTS)
    assert [answer.label for answer in answers] == [check.label for check in bundle.spec.checks]


@pytest.mark.parametrize("step", STEPS)
def test_a_step_whose_process_dies_is_brought_back(ensemble: serving.Endpoint, step: str) -> None:
    assert eventually(lambda: len(stubs(ensemble)) == 3)
    victim = stubs(ensemble)[step]
    victim.kill()

    def answers() -> bool:
        living = stubs(ensemble)
        if len(living) < 3 or living[step].pid == victim.pid:
            return False
        try:
            with serving.Client(ensemble.address, ensemble.model, timeout_s=5.0) as client:
                return client.classify(["good"])[0].label == "positive"
        except ServingError:
            return False

    assert eventually(answers)


def test_a_repository_for_gpus_only_is_not_started_here(tmp_path: Path, bundle: Bundle) -> None:
    from slipway.artifacts import write_artifact

    gpu = write_tiny_bundle(tmp_path / "both", gpu=True)
    spec = gpu.spec.model_copy(update={"targets": {"gpu": gpu.spec.targets["gpu"]}})
    with write_artifact(tmp_path / "gpu", "bundle", name="tiny", inputs="0" * 64) as draft:
        (draft.path / "gpu").mkdir()
        for file in ("tokenizer.json", "gpu/model.onnx", "frontier.json"):
            (draft.path / file).write_bytes((gpu.path / file).read_bytes())
        draft.write_json("bundle.json", spec.model_dump(mode="json"))
    written = serving.write_repository(Bundle.open(tmp_path / "gpu"), tmp_path / "repository", Serve())
    with pytest.raises(ServingError, match="a model for GPUs only"):
        serving.start(written.path, Serve(port=0))
