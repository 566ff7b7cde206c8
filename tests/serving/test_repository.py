"""A bundle rendered as a Triton model repository."""

from pathlib import Path

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

import serving
from slipway.artifacts import lineage
from slipway.bundle import Bundle
from slipway.errors import ServingError
from slipway.recipe import Serve
from tests.tiny_bundle import write_tiny_bundle

pytestmark = [pytest.mark.unit]


def config_of(path: Path) -> model_config_pb2.ModelConfig:
    text = (path / "models" / "tiny" / "config.pbtxt").read_text()
    return text_format.Parse(text, model_config_pb2.ModelConfig())


def test_texts_come_in_and_labels_scores_and_logits_go_out(bundle: Bundle, tmp_path: Path) -> None:
    config = config_of(serving.write_repository(bundle, tmp_path / "out", Serve()).path)
    assert [(t.name, t.data_type, list(t.dims)) for t in config.input] == [("text", model_config_pb2.TYPE_STRING, [1])]
    assert [(t.name, t.data_type, list(t.dims)) for t in config.output] == [
        ("label", model_config_pb2.TYPE_STRING, [1]),
        ("score", model_config_pb2.TYPE_FP32, [1]),
        ("logits", model_config_pb2.TYPE_FP32, [3]),
    ]
    assert config.max_batch_size == 64
    assert not config.HasField("dynamic_batching")


def test_instances_and_threads_are_the_sections(bundle: Bundle, tmp_path: Path) -> None:
    written = serving.write_repository(bundle, tmp_path / "out", Serve(instances=3, threads=2))
    config = config_of(written.path)
    assert config.instance_group[0].count == 3
    assert config.parameters["threads"].string_value == "2"
    assert written.json("repository.json")["instances"] == 3


def test_by_default_instances_take_the_cores_that_threads_leave(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.repository.available_cores", lambda: 8)
    written = serving.write_repository(bundle, tmp_path / "out", Serve(threads=3))
    assert written.json("repository.json")["instances"] == 2


def test_the_bundle_is_its_parent(bundle: Bundle, tmp_path: Path) -> None:
    written = serving.write_repository(bundle, tmp_path / "out", Serve())
    [(_, parent, found)] = lineage(written)
    assert parent.digest == bundle.artifact.digest
    assert found is not None


def test_an_unchanged_repository_is_reused_whatever_the_port(bundle: Bundle, tmp_path: Path) -> None:
    first = serving.write_repository(bundle, tmp_path / "out", Serve(port=1))
    again = serving.write_repository(bundle, tmp_path / "out", Serve(port=2))
    assert again.digest == first.digest
    assert (again.path / "manifest.json").stat().st_mtime_ns == (first.path / "manifest.json").stat().st_mtime_ns


def test_another_number_of_instances_makes_it_again(bundle: Bundle, tmp_path: Path) -> None:
    first = serving.write_repository(bundle, tmp_path / "out", Serve(instances=1))
    assert serving.write_repository(bundle, tmp_path / "out", Serve(instances=2)).digest != first.digest


@pytest.mark.parametrize("name", ["two words", "../up", "名", ""])
def test_a_name_that_is_no_part_of_a_url_is_refused(tmp_path: Path, name: str) -> None:
    odd = write_tiny_bundle(tmp_path / "bundle", name=name)
    with pytest.raises(ServingError, match="can't be part of a URL"):
        serving.write_repository(odd, tmp_path / "out", Serve())
    assert not (tmp_path / "out").exists()
