"""Both layouts on the real server: every configuration loads, and all answer as the bundle's own predictor."""

import asyncio
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pyarrow.parquet as pq
import pytest
import tritonclient.grpc as triton_grpc
from tritonclient.utils import InferenceServerException

import serving
from serving.protocol import inference_body
from slipway.bundle import EXPECTED, Bundle
from slipway.encoder import Windows
from slipway.predictor import Predictor
from slipway.recipe import Serve
from tests.serving.bare_triton import BareTriton, bare_triton
from tests.serving.conftest import eventually
from tests.tiny_bundle import write_tiny_bundle

pytestmark = [pytest.mark.integration]

WINDOWS = Windows(3, 16)
SECTION: dict[str, Any] = {"instances": 2, "long_text": "window", "window_stride": 16, "max_windows": 3}
ODD = ["good", "the " * 63, "the " * 70 + "bad " * 40, "good " * 20_000, "好棒! 👍", "unknownwordsonly"]


@pytest.fixture(scope="module", params=["fused", "ensemble", "fused openvino", "ensemble openvino", "fused variant"])
def case(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[BareTriton, Bundle]]:
    layout, _, kind = request.param.partition(" ")
    folder = tmp_path_factory.mktemp(request.param.replace(" ", "_"))
    engine: Any = "openvino" if kind == "openvino" else "onnxruntime"
    bundle = write_tiny_bundle(folder / "bundle", engine=engine, invariant=kind != "variant", gpu=not kind)
    section = Serve.model_validate({"layout": layout, **SECTION})
    repository = serving.write_repository(bundle, folder / "repository", section)
    with bare_triton(repository.path) as triton:
        yield triton, bundle


@pytest.fixture
def triton(case: tuple[BareTriton, Bundle]) -> BareTriton:
    return case[0]


@pytest.fixture
def bundle(case: tuple[BareTriton, Bundle]) -> Bundle:
    return case[1]


@pytest.fixture
def grpc(triton: BareTriton) -> triton_grpc.InferenceServerClient:
    return triton_grpc.InferenceServerClient(triton.grpc_address)


def infer(grpc: triton_grpc.InferenceServerClient, texts: list[str], **arguments: Any) -> Any:
    tensor = triton_grpc.InferInput("text", [len(texts), 1], "BYTES")
    tensor.set_data_from_numpy(np.array([[text.encode()] for text in texts], dtype=np.object_))
    return grpc.infer("tiny", [tensor], **arguments)


def test_answers_are_the_predictors(grpc: triton_grpc.InferenceServerClient, bundle: Bundle) -> None:
    texts = [*pq.read_table(bundle.path / EXPECTED)["text"].to_pylist()[:40], *ODD]
    predictor = Predictor(bundle.path, bundle.spec, bundle.target("cpu"), windows=WINDOWS)
    expected, rows = predictor.predict(texts), predictor.encoder.rows(texts)
    found = infer(grpc, texts)
    assert [label.decode() for label in found.as_numpy("label")[:, 0]] == expected.labels
    np.testing.assert_allclose(found.as_numpy("logits"), expected.logits, atol=1e-5)
    np.testing.assert_allclose(found.as_numpy("score")[:, 0], expected.scores, atol=1e-5)
    np.testing.assert_allclose(found.as_numpy("scores").max(axis=1), expected.scores, atol=1e-5)
    assert found.as_numpy("truncated")[:, 0].tolist() == [row.truncated for row in rows]


def test_answers_are_the_same_under_concurrency(triton: BareTriton, bundle: Bundle) -> None:
    texts = [*pq.read_table(bundle.path / EXPECTED)["text"].to_pylist()[:60], *ODD] * 3
    predictor = Predictor(bundle.path, bundle.spec, bundle.target("cpu"), windows=WINDOWS)
    expected = predictor.predict(texts)
    wrong: list[str] = []

    def ask(start: int) -> None:
        client = triton_grpc.InferenceServerClient(triton.grpc_address)
        for number in range(start, len(texts), 8):
            found = infer(client, [texts[number]]).as_numpy("logits")
            if not np.allclose(found[0], expected.logits[number], atol=1e-5):
                wrong.append(texts[number])

    threads = [threading.Thread(target=ask, args=(start,)) for start in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_generate_takes_and_gives_flat_json(triton: BareTriton) -> None:
    answer = triton.http.post("/v2/models/tiny/generate", json={"text": "good"})
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert body["model_name"] == "tiny"
    assert body["model_version"] == "1"
    assert body["label"] == "positive"
    assert 0.5 < body["score"] <= 1
    assert len(body["scores"]) == 3
    assert body["truncated"] is False


def test_generate_takes_top_k(triton: BareTriton) -> None:
    body = triton.http.post("/v2/models/tiny/generate", json={"text": "good", "top_k": 2}).json()
    assert body["label"] == ["positive", "neutral"]
    assert len(body["score"]) == 2
    refused = triton.http.post("/v2/models/tiny/generate", json={"text": "good", "top_k": 7})
    assert refused.status_code == 400
    assert "whole number from 1 to 3" in refused.json()["error"]


def test_a_wrong_request_is_an_invalid_argument(grpc: triton_grpc.InferenceServerClient) -> None:
    for texts, parameters, why in ((["good", " "], {}, "row 1: the text is blank"), (["good"], {"top_k": 0}, "1 to 3")):
        with pytest.raises(InferenceServerException, match=why) as caught:
            infer(grpc, texts, parameters=parameters)
        assert caught.value.status() == "StatusCode.INVALID_ARGUMENT"


def test_headers_reach_the_model(triton: BareTriton, grpc: triton_grpc.InferenceServerClient) -> None:
    late = {"X-Slipway-Deadline": f"{time.time() - 1:.3f}", "x-request-id": "abc"}
    step = "tiny" if triton.http.get("/v2/models/tiny_encoder").status_code != 200 else "tiny_encoder"
    before = triton.counts(step)
    refused = triton.http.post("/v2/models/tiny/infer", json=inference_body("good"), headers=late)
    assert refused.status_code == 503
    assert "deadline passed" in refused.json()["error"]
    with pytest.raises(InferenceServerException, match="deadline passed") as caught:
        infer(grpc, ["good"], headers={"x-slipway-deadline": f"{time.time() - 1:.3f}"})
    assert caught.value.status() == "StatusCode.UNAVAILABLE"
    if step == "tiny_encoder":
        assert triton.counts(step) == before


def test_the_outputs_that_are_named_are_those_that_come(grpc: triton_grpc.InferenceServerClient) -> None:
    outputs = [triton_grpc.InferRequestedOutput(name) for name in ("label", "truncated")]
    found = infer(grpc, ["good"], outputs=outputs).get_response()
    assert {output.name for output in found.outputs} == {"label", "truncated"}
    assert {output.name for output in infer(grpc, ["good"]).get_response().outputs} == {
        "label", "score", "scores", "logits", "truncated",
    }  # fmt: skip


def test_requests_that_wait_are_handed_over_together(triton: BareTriton, bundle: Bundle) -> None:
    step = "tiny" if triton.http.get("/v2/models/tiny_encoder").status_code != 200 else "tiny_encoder"
    before = triton.counts(step)

    async def ask_all() -> list[int]:
        async with httpx.AsyncClient(base_url=triton.http.base_url, timeout=30) as client:
            asked = [client.post("/v2/models/tiny/generate", json={"text": "good"}) for _ in range(200)]
            return [answer.status_code for answer in await asyncio.gather(*asked)]

    assert asyncio.run(ask_all()) == [200] * 200
    # Triton counts after it has answered.
    assert eventually(lambda: triton.counts(step)[0] - before[0] == 200)
    executions = triton.counts(step)[1] - before[1]
    if bundle.target("cpu").batch_invariant:
        assert executions < 200
    else:
        assert executions == 200
