"""Values from evidence: every figure has its source, and the chart takes the file."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from deployment.values import Evidence, Wanted, values_file
from slipway.artifacts import Artifact, read_artifact, write_artifact
from slipway.bundle import Bundle
from slipway.capacity import CAPACITY, Capacity
from slipway.cli import cli
from slipway.errors import SlipwayError
from slipway.recipe import LoadTest
from slipway.timeline import TIMELINE
from slipway.verdict import VERDICT
from tests.helm.cases import MINIMAL
from tests.helm.rendering import Render, endpoint_of, merged
from tests.loadtests.made_artifacts import capacity, verdict_of
from tests.loadtests.synthetic import Queue
from tests.tiny_bundle import write_tiny_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_tiny_bundle(tmp_path_factory.mktemp("bundle") / "bundle", gpu=True)


def measured(bundle: Bundle, folder: Path, found: Capacity | None = None) -> Artifact:
    """A capacity of `bundle`."""
    section = LoadTest()
    with write_artifact(
        folder,
        "capacity",
        name="tiny",
        inputs="x",
        parents=[bundle.artifact],
        recipe={"loadtest": section.model_dump()},
    ) as draft:
        draft.write_json(CAPACITY, (found or capacity()).model_dump(mode="json"))
    return read_artifact(folder)


def written(bundle: Bundle, artifact: Artifact, **wanted: Any) -> dict[str, Any]:
    """The values as a mapping."""
    text = values_file(bundle, Evidence.read(artifact.path, bundle), Wanted(**wanted))
    found: dict[str, Any] = yaml.safe_load(text)
    return found


@pytest.mark.unit
def test_every_figure_comes_from_the_capacity(bundle: Bundle, tmp_path: Path) -> None:
    found = capacity().model_copy(
        update={"endpoint": {"instances": 2, "threads": 1, "layout": "fused", "long_text": "window", "ready_s": 7.4}}
    )
    values = written(bundle, measured(bundle, tmp_path / "capacity", found), peak=3000, usual=400)
    assert values["hardware"] == "cpu"
    assert values["instances"] == 2
    assert values["model"] == {"digest": f"sha256:{bundle.artifact.digest}"}
    assert values["serve"] == {"layout": "fused", "threads": 1, "long_text": "window"}
    assert values["slo"] == {"latencyMs": 50, "latencyPercent": 99}
    # 700 MB × 1.5 and 256 MiB of shared memory, in steps of 256 MiB; two threads and one core.
    assert values["resources"]["limits"] == {"cpu": "3", "memory": "1280Mi"}
    assert values["startupSeconds"] == 74
    # 226 requests/s at least, of which 70 % are 158.2.
    assert values["autoscaling"] == {
        "targets": {"busyInstances": 1.4, "inFlight": 4},
        "minReplicas": 3,
        "maxReplicas": 29,
    }


@pytest.mark.unit
def test_what_is_usual_is_never_above_the_maximum(bundle: Bundle, tmp_path: Path) -> None:
    values = written(bundle, measured(bundle, tmp_path / "capacity", capacity()), usual=10_000)
    assert values["autoscaling"]["minReplicas"] == 64
    assert values["autoscaling"]["maxReplicas"] == 128


@pytest.mark.unit
def test_what_is_not_known_is_left_to_the_chart(bundle: Bundle, tmp_path: Path) -> None:
    found = capacity().model_copy(update={"memory_mb": None, "cpu_ms_per_request": None})
    values = written(bundle, measured(bundle, tmp_path / "capacity", found))
    assert "memory" not in values["resources"]["limits"]
    assert not {"startupSeconds", "serve"} & set(values)
    assert not {"minReplicas", "maxReplicas", "type"} & set(values["autoscaling"])


@pytest.mark.unit
def test_a_server_that_used_more_cores_than_its_threads_gets_them(bundle: Bundle, tmp_path: Path) -> None:
    found = capacity().model_copy(update={"cpu_ms_per_request": 20.0})
    values = written(bundle, measured(bundle, tmp_path / "capacity", found))
    assert values["resources"]["requests"]["cpu"] == "5"


@pytest.mark.unit
def test_a_verdict_says_what_it_did_not_measure(bundle: Bundle, tmp_path: Path) -> None:
    section = LoadTest.model_validate({"rate": 50, "duration_s": 10, "slo": {"p95_ms": 100.0, "p50_ms": 50.0}})
    verdict, timeline = verdict_of(Queue().simulate(50, 10, seed=1), section, tmp_path / "scratch")
    assert verdict.outcome == "met", verdict.reason
    with write_artifact(
        tmp_path / "verdict", "verdict", name="tiny", inputs="x", parents=[bundle.artifact], recipe={}
    ) as draft:
        draft.write_json(VERDICT, verdict.model_dump(mode="json"))
        draft.write_json(TIMELINE, timeline.model_dump(mode="json"))
    text = values_file(bundle, Evidence.read(tmp_path / "verdict", bundle), Wanted())
    assert "what it can do beyond was not measured" in text
    assert yaml.safe_load(text)["slo"] == {"latencyMs": 100, "latencyPercent": 95}


@pytest.mark.unit
@pytest.mark.parametrize(
    ("change", "wanted", "message"),
    [
        ({"endpoint": {}}, {}, "--instances is needed"),
        ({"outcome": "none", "interval": None}, {}, "no rate met the objective"),
        ({}, {"hardware": "nvidia-t5"}, "chart can't take"),
    ],
)
def test_what_can_not_be_known_is_asked_for(
    bundle: Bundle, tmp_path: Path, change: dict[str, Any], wanted: dict[str, Any], message: str
) -> None:
    artifact = measured(bundle, tmp_path / "capacity", capacity().model_copy(update=change))
    with pytest.raises(SlipwayError, match=message):
        written(bundle, artifact, **wanted)


@pytest.mark.unit
def test_a_measurement_of_another_bundle_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    other = write_tiny_bundle(tmp_path / "other", "other")
    artifact = measured(other, tmp_path / "capacity")
    with pytest.raises(SlipwayError, match="was measured with another bundle"):
        written(bundle, artifact)


@pytest.mark.unit
def test_a_bundle_without_a_model_for_the_hardware_is_refused(tmp_path: Path) -> None:
    only_cpu = write_tiny_bundle(tmp_path / "bundle")
    artifact = measured(only_cpu, tmp_path / "capacity")
    with pytest.raises(SlipwayError, match="no model for nvidia-l4"):
        written(only_cpu, artifact, hardware="nvidia-l4")


@pytest.mark.integration
@pytest.mark.parametrize("hardware", ["cpu", "nvidia-l4"])
def test_helm_renders_what_the_command_writes(bundle: Bundle, hardware: str, tmp_path: Path, render: Render) -> None:
    artifact = measured(bundle, tmp_path / "capacity")
    file = tmp_path / "new/values.yaml"
    command = ["deploy", "values", str(bundle.path), "--verdict", str(artifact.path), "--hardware", hardware]
    result = CliRunner().invoke(cli, [*command, "--peak", "1000", "--out", str(file)], standalone_mode=False)
    assert result.exception is None, result.output
    values = yaml.safe_load(file.read_text(encoding="utf-8"))
    container = endpoint_of(render(merged(MINIMAL, merged(values, {"autoscaling": {"type": "hpa"}}))))
    assert f"--digest=sha256:{bundle.artifact.digest}" in container["args"]
    assert ("nvidia.com/gpu" in container["resources"]["limits"]) == (hardware == "nvidia-l4")
