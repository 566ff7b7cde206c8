"""What a caller gets at the front door: the bundle's own answers, and for anything wrong a reason."""

import json
from typing import Any

import httpx
import numpy as np
import pyarrow.parquet as pq
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from tritonclient.utils import InferenceServerException

import serving
from serving.protocol import inference_body
from slipway.bundle import EXPECTED, Bundle

pytestmark = [pytest.mark.integration]


@pytest.fixture
def http(endpoint: serving.Endpoint) -> httpx.Client:
    return httpx.Client(base_url=endpoint.url, timeout=30)


@pytest.fixture
def grpc(endpoint: serving.Endpoint) -> triton_grpc.InferenceServerClient:
    return triton_grpc.InferenceServerClient(endpoint.address)


INFER = "/v2/models/tiny/infer"


def reason(response: httpx.Response, status: int) -> str:
    """The reason of a refusal, which must be JSON with nothing but `error`."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"].startswith("application/json")
    body = response.json()
    assert list(body) == ["error"]
    return str(body["error"])


def request_with(**changes: Any) -> dict[str, Any]:
    body = inference_body("good")
    body["inputs"][0].update(changes)
    return body


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_answers_are_the_bundles_own(endpoint: serving.Endpoint, bundle: Bundle, protocol: Any) -> None:
    expected = pq.read_table(bundle.path / EXPECTED)
    with serving.Client(endpoint.address, endpoint.model, protocol) as client:
        answers = client.classify(expected["text"].to_pylist())
    assert [answer.label for answer in answers] == expected["predicted"].to_pylist()
    assert [answer.score for answer in answers] == pytest.approx(expected["score"].to_pylist(), abs=1e-5)


def test_logits_come_when_they_are_asked_for(http: httpx.Client, bundle: Bundle) -> None:
    body = request_with()
    body["outputs"].append({"name": "logits"})
    outputs = {output["name"]: output for output in http.post(INFER, json=body).json()["outputs"]}
    assert outputs["logits"]["shape"] == [1, len(bundle.spec.labels)]
    assert outputs["logits"]["data"] == pytest.approx([0.0, 0.5, 2.0])


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("good " * 20_000, "positive"),
        ("👍", "positive"),
        ("😡 😡", "negative"),
        ("糟糕的天", "negative"),
        ("nul \x00 and bell \x07, good", "positive"),
        ("e\u0301\u200d good", "positive"),
        ("unknownwordsonly", "neutral"),
    ],
    ids=["100 kB", "emoji", "emoji twice", "Chinese", "control characters", "combining", "unknown"],
)
@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_odd_texts_are_answered(endpoint: serving.Endpoint, protocol: Any, text: str, label: str) -> None:
    with serving.Client(endpoint.address, endpoint.model, protocol) as client:
        assert client.classify([text])[0].label == label


@pytest.mark.parametrize("text", ["", " ", "\n\t", "\u3000"])
@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_a_text_without_words_is_refused_with_its_row(endpoint: serving.Endpoint, protocol: Any, text: str) -> None:
    with (
        serving.Client(endpoint.address, endpoint.model, protocol) as client,
        pytest.raises(serving.RequestRefusedError, match="row 1: the text is"),
    ):
        client.classify(["good", text])


def test_bytes_that_are_not_utf8_are_a_400_over_http(http: httpx.Client) -> None:
    body = json.dumps(inference_body("?")).encode().replace(b"?", b"a\xff")
    assert "row 0: the text is not valid UTF-8" in reason(http.post(INFER, content=body), 400)


def test_bytes_that_are_not_utf8_are_an_invalid_argument_over_grpc(
    grpc: triton_grpc.InferenceServerClient,
) -> None:
    tensor = triton_grpc.InferInput("text", [1, 1], "BYTES")
    tensor.set_data_from_numpy(np.array([[b"a\xff"]], dtype=np.object_))
    with pytest.raises(InferenceServerException, match="row 0: the text is not valid UTF-8") as caught:
        grpc.infer("tiny", [tensor])
    assert caught.value.status() == "StatusCode.INVALID_ARGUMENT"


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "the body is empty"),
        (b"  ", "not JSON"),
        (b"hello", "not JSON"),
        (b"[]", "not JSON"),
        (b"null", "not JSON"),
        (b'{"inputs":', "not valid JSON: it ends too early"),
        (b'{"inputs": [1,]}', "not valid JSON: something unexpected at byte 15"),
        (b'{"inputs": [NaN]}', "unexpected at byte 13"),
        (b'{"a": 01}', "unexpected at byte 8"),
        (b'{"a": "\\x"}', "unexpected at byte 8"),
        (b'{"a": "\n"}', "unexpected at byte 8"),
        (b'{"a": 1} {}', "unexpected at byte 10"),
        (b"{'a': 1}", "unexpected at byte 2"),
        (b"{}", "'inputs'"),
        (b'{"inputs":{}}', "array"),
        (b'{"a":' + b"[" * 100_000, "nested deeper than 64 levels"),
        (b'{"a":' * 50_000, "nested deeper than 64 levels"),
        (b'{"a":"\\"' + b"[" * 100_000, "it ends too early"),
        (json.dumps(request_with(data=[1])).encode(), "string"),
        (json.dumps(request_with(shape=[-1, 1])).encode(), "shape"),
        (json.dumps(request_with(shape=[1])).encode(), "shape"),
        (json.dumps(request_with(shape=[2, 1])).encode(), "expected 2"),
        (json.dumps(request_with(shape=[0, 1], data=[])).encode(), "expected"),
        (json.dumps(request_with(shape=[65, 1], data=["a"] * 65)).encode(), "<= 64"),
        (json.dumps(request_with(datatype="FP32", data=[1.0])).encode(), "expects 'BYTES'"),
        (json.dumps(request_with(name="txt")).encode(), "unexpected inference input 'txt'"),
    ],
)
def test_a_body_that_is_wrong_is_a_400_that_says_why(http: httpx.Client, body: bytes, why: str) -> None:
    assert why in reason(http.post(INFER, content=body), 400)
    assert http.post(INFER, json=inference_body("good")).status_code == 200


@pytest.mark.parametrize(
    "kind", ["application/grpc-web", "application/grpcx", "application/grpc;a=b", "text/plain", ""]
)
def test_a_body_is_checked_whatever_it_is_called(http: httpx.Client, kind: str) -> None:
    answer = http.post(INFER, content=b'{"a":' + b"[" * 65, headers={"content-type": kind})
    assert "nested deeper than 64 levels" in reason(answer, 400)


def test_nesting_inside_a_text_is_a_text(http: httpx.Client) -> None:
    assert http.post(INFER, json=inference_body("good " + '[{"' * 1000)).status_code == 200


def test_a_body_over_the_limit_is_a_413_that_names_the_limit(http: httpx.Client) -> None:
    assert "larger than 400000 bytes" in reason(http.post(INFER, content=b"[" * 400_001), 413)
    chunks = (b"[" * 50_000 for _ in range(20))
    assert "larger than 400000 bytes" in reason(http.post(INFER, content=chunks), 413)


def test_a_message_over_the_limit_is_resource_exhausted(grpc: triton_grpc.InferenceServerClient) -> None:
    tensor = triton_grpc.InferInput("text", [1, 1], "BYTES")
    tensor.set_data_from_numpy(np.array([[b"a" * 400_001]], dtype=np.object_))
    with pytest.raises(InferenceServerException, match="larger than 400000 bytes") as caught:
        grpc.infer("tiny", [tensor])
    assert caught.value.status() == "StatusCode.RESOURCE_EXHAUSTED"


def test_compressed_requests_are_refused(http: httpx.Client, grpc: triton_grpc.InferenceServerClient) -> None:
    answer = http.post(INFER, content=b"\x1f\x8b", headers={"content-encoding": "gzip"})
    assert "without Content-Encoding" in reason(answer, 415)
    tensor = triton_grpc.InferInput("text", [1, 1], "BYTES")
    tensor.set_data_from_numpy(np.array([[b"good"]], dtype=np.object_))
    with pytest.raises(InferenceServerException, match="uncompressed"):
        grpc.infer("tiny", [tensor], compression_algorithm="gzip")


def test_binary_tensors_over_http_work(endpoint: serving.Endpoint) -> None:
    with triton_http.InferenceServerClient(endpoint.address) as client:
        tensor = triton_http.InferInput("text", [2, 1], "BYTES")
        tensor.set_data_from_numpy(np.array([[b"good"], ["坏".encode()]], dtype=np.object_), binary_data=True)
        labels = client.infer("tiny", [tensor]).as_numpy("label")
    assert labels[:, 0].tolist() == [b"positive", b"negative"]


@pytest.mark.parametrize("length", ["0", "-1", "abc", "999999", "1, 2"])
def test_a_wrong_length_of_the_json_part_is_refused(http: httpx.Client, length: str) -> None:
    headers = {"Inference-Header-Content-Length": length}
    answer = http.post(INFER, json=inference_body("good"), headers=headers)
    assert "Inference-Header-Content-Length must be" in reason(answer, 400)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v2/models/other/infer"),
        ("GET", "/"),
        ("GET", "/metrics"),
        ("GET", "/v2/models/tiny/config"),
        ("GET", "/v2/models/tiny/stats"),
        ("GET", "/v2/models/stats"),
        ("GET", "/v2/logging"),
        ("POST", "/v2/logging"),
        ("GET", "/v2/trace/setting"),
        ("POST", "/v2/repository/index"),
        ("POST", "/v2/repository/models/tiny/unload"),
        ("POST", "/v2/repository/models/tiny/load"),
        ("GET", "/v2/systemsharedmemory/status"),
        ("POST", "/v2/systemsharedmemory/region/x/register"),
        ("GET", "/v2/cudasharedmemory/status"),
        ("POST", "/v2/models/tiny/../../repository/index"),
        ("POST", "/v2/models/tiny%2f..%2f..%2frepository/index"),
        ("POST", "//v2/repository/index"),
    ],
)
def test_nothing_but_inference_metadata_and_health_has_a_route(
    endpoint: serving.Endpoint, method: str, path: str
) -> None:
    url = httpx.URL(endpoint.url, raw_path=path.encode())
    assert "POST texts to /v2/models/tiny/infer" in reason(httpx.request(method, url), 404)


def test_inference_with_another_method_is_a_405(http: httpx.Client) -> None:
    assert reason(http.get(INFER), 405) == "use POST"


def test_an_unknown_version_is_a_404(http: httpx.Client) -> None:
    answer = http.post("/v2/models/tiny/versions/7/infer", json=inference_body("good"))
    assert "version 7 is not found" in reason(answer, 404)


@pytest.mark.parametrize(
    "call",
    [
        lambda client: client.get_model_repository_index(),
        lambda client: client.load_model("tiny"),
        lambda client: client.unload_model("tiny"),
        lambda client: client.get_log_settings(),
        lambda client: client.update_log_settings({"log_verbose_level": 9}),
        lambda client: client.get_trace_settings(),
        lambda client: client.get_system_shared_memory_status(),
        lambda client: client.register_system_shared_memory("x", "/x", 8),
        lambda client: client.get_cuda_shared_memory_status(),
        lambda client: client.get_inference_statistics(),
        lambda client: client.get_model_config("tiny"),
    ],
)
def test_grpc_administration_is_unimplemented(grpc: triton_grpc.InferenceServerClient, call: Any) -> None:
    with pytest.raises(InferenceServerException, match="not served") as caught:
        call(grpc)
    assert caught.value.status() == "StatusCode.UNIMPLEMENTED"


def test_an_unknown_model_is_not_found_over_grpc(endpoint: serving.Endpoint) -> None:
    with (
        serving.Client(endpoint.address, "other") as client,
        pytest.raises(serving.RequestRefusedError, match="unknown model"),
    ):
        client.classify(["good"])


def test_metadata_and_health_are_served(http: httpx.Client, grpc: triton_grpc.InferenceServerClient) -> None:
    assert http.get("/v2/models/tiny").json()["inputs"][0]["name"] == "text"
    for path in ("/healthz", "/v2/health/ready", "/v2/health/live"):
        assert http.get(path).json() == {"status": "ok"}
    assert grpc.is_server_live()
    assert grpc.is_server_ready()
    assert grpc.is_model_ready("tiny")
    assert grpc.get_model_metadata("tiny").name == "tiny"


def test_an_endpoint_that_is_not_there_is_unavailable() -> None:
    for protocol in ("grpc", "http"):
        with (
            serving.Client("127.0.0.1:9", "tiny", protocol) as client,
            pytest.raises(serving.EndpointUnavailableError, match=r"127\.0\.0\.1:9"),
        ):
            client.classify(["good"])


def test_the_access_log_holds_no_texts(endpoint: serving.Endpoint, http: httpx.Client) -> None:
    http.post(INFER + "?q=secretquery", json=inference_body("secretbody good"))
    log = endpoint.access_log
    # Envoy flushes it every few seconds; what matters is what can be in it at all.
    lines = log.read_text(encoding="utf-8") if log.exists() else ""
    assert "secret" not in lines


def test_one_bad_request_among_many_fails_alone(endpoint: serving.Endpoint) -> None:
    import asyncio

    async def ask(client: httpx.AsyncClient, text: str) -> int:
        return (await client.post(INFER, json=inference_body(text))).status_code

    async def ask_all() -> list[int]:
        async with httpx.AsyncClient(base_url=endpoint.url, timeout=30) as client:
            return await asyncio.gather(*(ask(client, "" if n % 5 == 0 else "good") for n in range(100)))

    assert asyncio.run(ask_all()) == [400 if n % 5 == 0 else 200 for n in range(100)]
