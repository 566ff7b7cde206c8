"""What a bundle says about its engine is what Triton runs."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest

import serving
from slipway.bundle import EXPECTED, Bundle
from slipway.predictor import Predictor
from slipway.processes import marked_processes
from slipway.recipe import Serve
from tests.tiny_bundle import write_tiny_bundle

pytestmark = [pytest.mark.integration]


@pytest.fixture(scope="module")
def openvino_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_tiny_bundle(tmp_path_factory.mktemp("openvino") / "bundle", engine="openvino")


@pytest.fixture(scope="module")
def openvino_endpoint(openvino_bundle: Bundle) -> Iterator[serving.Endpoint]:
    section = Serve(port=0, instances=2)
    repository = serving.write_repository(openvino_bundle, openvino_bundle.path.parent / "repository", section)
    with serving.start(repository.path, section) as endpoint:
        yield endpoint


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_an_openvino_bundle_answers_in_triton_what_its_predictor_answers(
    openvino_endpoint: serving.Endpoint, openvino_bundle: Bundle, protocol: Any
) -> None:
    texts = pq.read_table(openvino_bundle.path / EXPECTED)["text"].to_pylist()
    predictor = Predictor(openvino_bundle.path, openvino_bundle.spec, openvino_bundle.target("cpu"))
    with serving.Client(openvino_endpoint.address, openvino_endpoint.model, protocol) as client:
        answers = client.classify(texts)
    expected = predictor.predict(texts)
    assert [answer.label for answer in answers] == expected.labels
    np.testing.assert_allclose([answer.score for answer in answers], expected.scores, atol=1e-5)


def test_tritons_model_processes_run_the_bundles_engine_and_no_other(openvino_endpoint: serving.Endpoint) -> None:
    endpoint_id = openvino_endpoint.access_log.parent.name
    stubs = [process for process in marked_processes(endpoint_id) if _is_stub(process)]
    assert len(stubs) == 2
    for stub in stubs:
        loaded = {Path(region.path).name for region in stub.memory_maps()}
        assert any(name.startswith("libopenvino_intel_cpu_plugin") for name in loaded)
        assert not any(name.startswith("onnxruntime_pybind11_state") for name in loaded)


def _is_stub(process: psutil.Process) -> bool:
    return any("triton_python_backend_stub" in argument for argument in process.cmdline())
