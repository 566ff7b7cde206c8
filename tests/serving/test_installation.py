"""A Triton of one's own serves as the wheel's does; a directory that isn't one is refused in one sentence."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import serving
from serving.server.installation import Embedded, Installation, installed
from serving.server.runtime import Runtime
from serving.server.triton import TritonServer
from slipway.bundle import Bundle
from slipway.errors import ServingError
from slipway.recipe import Serve
from tests.serving.conftest import Owner, eventually
from tests.tiny_bundle import CHECK_TEXTS, write_tiny_bundle

pytestmark = [pytest.mark.integration]

STUB = "backends/python/triton_python_backend_stub"


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel's files, laid out as NVIDIA's image has them; the encoder's backend is the one written in Python."""
    root = tmp_path_factory.mktemp("opt") / "tritonserver"
    wheel = Embedded.find()
    wheel.stage(root)
    (root / "bin").mkdir()
    shutil.copy(wheel.program, root / "bin")
    (root / "lib").symlink_to(wheel.libraries)
    return root


@pytest.fixture
def copied(directory: Path, tmp_path: Path) -> Path:
    """One that a test may spoil."""
    return shutil.copytree(directory, tmp_path / "tritonserver", symlinks=True)


@pytest.fixture
def both(tmp_path: Path) -> Bundle:
    """A bundle with a model for CPUs and one for GPUs."""
    return write_tiny_bundle(tmp_path / "bundle", gpu=True)


def files(root: Path) -> dict[str, int]:
    """What is there, but for what Python compiled; the stub heeds no PYTHONDONTWRITEBYTECODE."""
    found = (file for file in root.rglob("*") if file.is_file() and file.suffix != ".pyc")
    return {str(file.relative_to(root)): file.stat().st_mtime_ns for file in found}


def test_a_fused_model_is_served_by_it_where_it_lies(
    own: Callable[..., Owner], directory: Path, bundle: Bundle
) -> None:
    before = files(directory)
    owner = own(environment={"SLIPWAY_TRITON": str(directory)})
    with serving.Client(owner.address, "tiny") as client:
        answers = client.classify(CHECK_TEXTS)
    assert [answer.label for answer in answers] == [check.label for check in bundle.spec.checks]
    [triton] = owner.named(f"{directory}/bin/tritonserver")
    assert f"--backend-directory={directory}/backends" in triton.cmdline()
    assert {stub.cmdline()[0] for stub in owner.named(STUB)} == {f"{directory}/{STUB}"}
    assert files(directory) == before


def test_a_process_that_dies_in_it_is_brought_back(own: Callable[..., Owner], directory: Path, bundle: Bundle) -> None:
    section = Serve(port=0, layout="ensemble", instances=1)
    repository = serving.write_repository(bundle, bundle.path.parent / "own ensemble", section)
    owner = own(repository.path, {"SLIPWAY_TRITON": str(directory)}, timeout_s=5.0)
    [encoder] = owner.named("tiny_encoder")
    encoder.kill()
    assert eventually(lambda: [one.pid for one in owner.named("tiny_encoder")] not in ([], [encoder.pid]))
    with serving.Client(owner.address, "tiny") as client:
        assert eventually(lambda: client.classify(CHECK_TEXTS[:1])[0].label == bundle.spec.checks[0].label)


def test_instances_are_what_triton_says(endpoint: serving.Endpoint) -> None:
    about = endpoint.describe()
    assert (about["instances"], about["target"]) == (2, "cpu")
    assert about["triton_from"].startswith("the Triton of nvidia-pytriton ")


@pytest.mark.parametrize("missing", ["bin/tritonserver", STUB, "backends/python/libtriton_python.so"])
def test_a_directory_without_a_part_is_refused_by_the_part(copied: Path, missing: str, tmp_path: Path) -> None:
    (copied / missing).unlink()
    with pytest.raises(ServingError, match=f"SLIPWAY_TRITON is {copied}, which has no {missing}; it must be laid out"):
        installed(str(copied)).stage(tmp_path)


def test_no_directory_is_refused(tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLIPWAY_TRITON", str(tmp_path / "none"))
    with pytest.raises(ServingError, match="none, which is not a directory; it must be laid out as /opt/tritonserver"):
        serving.start(repository, Serve(port=0))


def test_a_backend_for_another_python_is_refused(copied: Path, tmp_path: Path) -> None:
    stub = copied / STUB
    stub.write_bytes(stub.read_bytes().replace(b"libpython3.1", b"libpython3.9"))
    with pytest.raises(ServingError, match=r"is for Python 3\.9\d, and this is 3\.1\d; install Slipway with Python"):
        installed(str(copied)).stage(tmp_path)


def test_a_program_that_may_not_be_run_is_refused(copied: Path, tmp_path: Path) -> None:
    (copied / "bin/tritonserver").chmod(0o600)
    with pytest.raises(ServingError, match="can't be executed by this user"):
        installed(str(copied)).stage(tmp_path)


def test_an_encoder_needs_its_backend(copied: Path, bundle: Bundle, tmp_path: Path) -> None:
    shutil.rmtree(copied / "backends" / "onnxruntime")
    section = Serve(port=0, layout="ensemble", instances=1)
    repository = serving.write_repository(bundle, tmp_path / "repository", section)
    with pytest.raises(ServingError, match=r"has no backend 'onnxruntime'.*serve.layout: fused"):
        installed(str(copied)).require(serving.Repository(repository), "cpu")


def test_a_backend_in_c_has_no_processes(copied: Path) -> None:
    own = installed(str(copied))
    assert own.runs_in_processes("onnxruntime")
    (copied / "backends/onnxruntime/libtriton_onnxruntime.so").touch()
    assert not own.runs_in_processes("onnxruntime")
    assert own.runs_in_processes("python")


def command(installation: Installation, target: str) -> list[str]:
    runtime = Runtime.create()
    try:
        server = TritonServer.plan(installation, target, runtime, "tiny", 1)  # type: ignore[arg-type]
        return server.command("tiny-")
    finally:
        runtime.sweep()
        runtime.release()


def test_a_gpu_is_measured_and_given_pinned_memory(directory: Path) -> None:
    cpu, gpu = (command(installed(str(directory)), target) for target in ("cpu", "gpu"))
    assert "--model-config-name=gpu" in gpu
    assert not [option for option in gpu if option.startswith(("--allow-gpu-metrics", "--pinned-memory"))]
    assert {"--model-config-name=cpu", "--allow-gpu-metrics=false"} <= set(cpu)


def test_the_wheel_serves_no_gpu(both: Bundle) -> None:
    repository = serving.write_repository(both, both.path.parent / "repository", Serve(port=0))
    with pytest.raises(ServingError, match=r"target is gpu, and the Triton of nvidia-pytriton .* runs on CPUs"):
        serving.start(repository.path, Serve(port=0, target="gpu"))


def test_a_repository_without_a_model_for_gpus_is_refused(repository: Path, directory: Path) -> None:
    with pytest.raises(ServingError, match="has no model for GPUs; export one with --target gpu"):
        installed(str(directory)).require(serving.Repository.open(repository), "gpu")


@pytest.mark.parametrize("layout", ["fused", "ensemble"])
def test_a_model_for_gpus_does_not_run_without_one(
    both: Bundle, directory: Path, layout: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wheel's binary stands in for one that uses GPUs: it loads the gpu configuration, and says that it can't."""
    monkeypatch.setenv("SLIPWAY_TRITON", str(directory))
    section = Serve.model_validate({"port": 0, "target": "gpu", "layout": layout})
    repository = serving.write_repository(both, both.path.parent / "repository", section)
    with pytest.raises(ServingError, match="kind KIND_GPU but no GPUs are available"):
        serving.start(repository.path, section)
