"""A bundle rendered as a Triton model repository."""

from pathlib import Path
from typing import Any

import pytest
from tritonclient.grpc import model_config_pb2 as schema

import serving
from slipway.artifacts import lineage, write_artifact
from slipway.bundle import FRONTIER, SPEC, Bundle, Variant
from slipway.errors import ServingError
from slipway.recipe import Serve
from tests.serving.loading import read_config
from tests.tiny_bundle import write_tiny_bundle

pytestmark = [pytest.mark.unit]


def config_of(path: Path, model: str = "tiny", name: str = "config") -> Any:
    return read_config(path / "models" / model / f"{name}.pbtxt")


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle with a model for CPUs and one for GPUs."""
    return write_tiny_bundle(tmp_path_factory.mktemp("both") / "bundle", gpu=True)


@pytest.fixture(scope="module")
def variant(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle whose answers depend on what is in a batch."""
    return write_tiny_bundle(tmp_path_factory.mktemp("variant") / "bundle", invariant=False)


@pytest.mark.parametrize("layout", ["fused", "ensemble"])
def test_texts_come_in_and_the_outputs_of_the_protocol_go_out(bundle: Bundle, tmp_path: Path, layout: Any) -> None:
    config = config_of(serving.write_repository(bundle, tmp_path / "out", Serve(layout=layout)).path)
    assert [(t.name, t.data_type, list(t.dims)) for t in config.input] == [("text", schema.TYPE_STRING, [1])]
    assert [(t.name, t.data_type, list(t.dims)) for t in config.output] == [
        ("label", schema.TYPE_STRING, [-1]),
        ("score", schema.TYPE_FP32, [-1]),
        ("scores", schema.TYPE_FP32, [3]),
        ("logits", schema.TYPE_FP32, [3]),
        ("truncated", schema.TYPE_BOOL, [1]),
    ]
    assert config.max_batch_size == 64


@pytest.mark.parametrize("layout", ["fused", "ensemble"])
def test_every_configuration_parses_for_every_target(both: Bundle, tmp_path: Path, layout: Any) -> None:
    path = serving.write_repository(both, tmp_path / "out", Serve(layout=layout)).path
    files = sorted(path.glob("models/**/*.pbtxt"))
    names = {str(file.relative_to(path / "models")) for file in files}
    steps = {"fused": ["tiny"], "ensemble": ["tiny_tokenize", "tiny_encoder", "tiny_decode"]}[layout]
    assert names == {"tiny/config.pbtxt"} | {
        f"{step}/{file}.pbtxt" for step in steps for file in ("config", "configs/cpu", "configs/gpu")
    }
    for file in files:
        parsed = read_config(file)
        assert parsed.name == file.relative_to(path / "models").parts[0]


def test_no_policy_of_the_queue_keeps_the_batcher_asleep(bundle: Bundle, tmp_path: Path) -> None:
    for layout in ("fused", "ensemble"):
        section = Serve(layout=layout, max_queue=7, timeout_s=1.5)
        path = serving.write_repository(bundle, tmp_path / layout, section).path
        configs = [read_config(file) for file in path.rglob("*.pbtxt")]
        assert not [config.name for config in configs if config.dynamic_batching.HasField("default_queue_policy")]
        assert config_of(path).dynamic_batching.max_queue_delay_microseconds == 0


def test_a_model_whose_answers_depend_on_its_batch_gets_single_requests(variant: Bundle, tmp_path: Path) -> None:
    config = config_of(serving.write_repository(variant, tmp_path / "out", Serve(queue_delay_us=500)).path)
    assert list(config.dynamic_batching.preferred_batch_size) == [1]
    assert config.dynamic_batching.max_queue_delay_microseconds == 0


def test_such_a_model_is_no_ensemble(variant: Bundle, tmp_path: Path) -> None:
    with pytest.raises(ServingError, match=r"would depend on what it was batched with.*layout: fused"):
        serving.write_repository(variant, tmp_path / "out", Serve(layout="ensemble"))
    assert not (tmp_path / "out").exists()


def test_preferred_sizes_are_those_that_the_export_measured_to_be_faster(bundle: Bundle, tmp_path: Path) -> None:
    rates = {"1x32": 100.0, "8x32": 150.0, "32x32": 152.0, "1x128": 20.0, "8x128": 21.0, "32x128": 60.0}
    measured = with_speeds(bundle, tmp_path / "bundle", rates)
    config = config_of(serving.write_repository(measured, tmp_path / "out", Serve()).path)
    assert list(config.dynamic_batching.preferred_batch_size) == [8]
    little = with_speeds(bundle, tmp_path / "little", {"1x32": 100.0, "8x32": 104.0, "32x32": 98.0})
    single = config_of(serving.write_repository(little, tmp_path / "single", Serve(queue_delay_us=9)).path)
    assert list(single.dynamic_batching.preferred_batch_size) == [1]
    assert single.dynamic_batching.max_queue_delay_microseconds == 0
    tuned = with_speeds(bundle, tmp_path / "gpu", {"1x32": 100.0, "32x32": 900.0}, {"gpu": bundle.target("cpu")})
    [spec] = (
        serving.write_repository(tuned, tmp_path / "tuned", Serve()).json("repository.json")["preferred_sizes"].items()
    )
    assert spec == ("gpu", [32])
    unmeasured = config_of(serving.write_repository(bundle, tmp_path / "other", Serve()).path)
    assert list(unmeasured.dynamic_batching.preferred_batch_size) == []


def with_speeds(bundle: Bundle, out: Path, rates: dict[str, float], targets: Any = None) -> Bundle:
    """The bundle again, with a frontier that was measured."""
    import json
    import shutil

    [row] = json.loads((bundle.path / FRONTIER).read_text())
    row["speeds"] = {shape: {"p50_ms": 1.0, "p95_ms": 1.0, "sequences_per_s": rate} for shape, rate in rates.items()}
    with write_artifact(out, "bundle", name="tiny", inputs="0" * 64) as draft:
        shutil.copytree(bundle.path, draft.path, dirs_exist_ok=True, ignore=shutil.ignore_patterns("manifest.json"))
        draft.write_json(FRONTIER, [Variant.model_validate(row).model_dump(mode="json")])
        spec = bundle.spec.model_copy(update={"targets": targets or bundle.spec.targets})
        draft.write_json(SPEC, spec.model_dump(mode="json"))
    return Bundle.open(out)


def test_the_encoder_of_an_ensemble_is_the_bundles_file_with_the_settings_it_was_measured_with(
    bundle: Bundle, tmp_path: Path
) -> None:
    path = serving.write_repository(bundle, tmp_path / "out", Serve(layout="ensemble", instances=5)).path
    config = config_of(path, "tiny_encoder")
    assert config.backend == "onnxruntime"
    assert config.default_model_filename == "model.onnx"
    assert (path / "models/tiny_encoder/1/model.onnx").read_bytes() == (bundle.path / "cpu/model.onnx").read_bytes()
    parameters = {name: value.string_value for name, value in config.parameters.items()}
    assert parameters == {
        "intra_op_thread_count": "1",
        "inter_op_thread_count": "1",
        "execution_mode": "0",
        "disabled_optimizers": "SkipLayerNormFusion;BiasGeluFusion",
    }
    assert config.instance_group[0].count == 5
    assert config_of(path, "tiny_tokenize").instance_group[0].count == 2


def test_an_openvino_bundle_keeps_its_engine_in_an_ensemble(tmp_path: Path) -> None:
    openvino = write_tiny_bundle(tmp_path / "bundle", engine="openvino")
    path = serving.write_repository(openvino, tmp_path / "out", Serve(layout="ensemble", threads=3)).path
    config = config_of(path, "tiny_encoder")
    assert config.backend == "openvino"
    assert config.parameters["INFERENCE_NUM_THREADS"].string_value == "3"
    assert list(config.dynamic_batching.preferred_batch_size) == []


def test_a_gpus_encoder_runs_tensorrt_within_the_lengths_of_the_model(both: Bundle, tmp_path: Path) -> None:
    section = Serve.model_validate(
        {"layout": "ensemble", "gpu": {"instances": 2, "engine_cache": "/cache", "workspace_mb": 1024}}
    )
    path = serving.write_repository(both, tmp_path / "out", section).path
    config = config_of(path, "tiny_encoder", "configs/gpu")
    assert config.backend == "onnxruntime"
    assert config.default_model_filename == "gpu.onnx"
    assert (path / "models/tiny_encoder/1/gpu.onnx").is_file()
    [group] = config.instance_group
    assert (group.kind, group.count) == (schema.ModelInstanceGroup.KIND_GPU, 2)
    assert list(config.dynamic_batching.preferred_batch_size) == [8, 16, 32, 64]
    tensorrt, cuda = config.optimization.execution_accelerators.gpu_execution_accelerator
    assert (tensorrt.name, cuda.name) == ("tensorrt", "cuda")
    assert dict(tensorrt.parameters) == {
        "precision_mode": "FP16",
        "max_workspace_size_bytes": str(1 << 30),
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": "/cache",
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": "/cache",
        "trt_profile_min_shapes": "input_ids:1x1,attention_mask:1x1",
        "trt_profile_opt_shapes": "input_ids:32x32,attention_mask:32x32",
        "trt_profile_max_shapes": "input_ids:64x64,attention_mask:64x64",
    }
    cpu = config_of(path, "tiny_encoder", "configs/cpu")
    assert cpu == config_of(path, "tiny_encoder")
    assert cpu.instance_group[0].kind == schema.ModelInstanceGroup.KIND_CPU


def test_instances_and_threads_are_the_sections(bundle: Bundle, tmp_path: Path) -> None:
    written = serving.write_repository(bundle, tmp_path / "out", Serve(instances=3, threads=2))
    config = config_of(written.path)
    assert config.instance_group[0].count == 3
    assert config.parameters["threads"].string_value == "2"
    assert written.json("repository.json")["instances"] == 3


def test_by_default_instances_take_the_cores_that_threads_leave(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.repository.plan.available_cores", lambda: 8)
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
