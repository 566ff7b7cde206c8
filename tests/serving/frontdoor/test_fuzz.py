"""Whatever is sent to a real endpoint is answered, or refused with a reason that the caller can mend; it survives."""

import json
from collections.abc import Iterator
from typing import Any

import grpc
import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2

import serving
from serving.protocol import inference_body

pytestmark = [pytest.mark.integration, pytest.mark.slow]

TRIES = settings(
    max_examples=400,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
MODEL = "/v2/models/tiny"
SERVICE = "/inference.GRPCInferenceService"

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
anything = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
)
places = st.sampled_from(
    [
        ("inputs",), ("outputs",), ("id",), ("parameters",),
        ("inputs", 0), ("inputs", 0, "name"), ("inputs", 0, "shape"), ("inputs", 0, "datatype"), ("inputs", 0, "data"),
        ("inputs", 0, "parameters"), ("outputs", 0), ("outputs", 0, "name"), ("outputs", 0, "parameters"),
    ]
)  # fmt: skip
tempting = st.sampled_from(
    [
        {"binary_data_size": 4}, {"binary_data_size": -1}, {"binary_data": True}, {"shared_memory_region": "x"},
        {"classification": 3}, {"binary_data_output": True}, {"sequence_id": 1}, {"timeout": -1}, {"top_k": 99},
        {"priority": 2**64}, [2**63, 1], [-1, 1], [1, 1, 1], ["a"], [[["a"]]], 10**400, "\ud800", "FP32", "\x00",
    ]
)  # fmt: skip


@pytest.fixture(scope="module")
def http(endpoint: serving.Endpoint) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=endpoint.url, timeout=30) as client:
        yield client


@pytest.fixture(scope="module")
def channel(endpoint: serving.Endpoint) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(endpoint.address) as one:
        yield one


def changed(place: tuple[Any, ...], value: Any) -> dict[str, Any]:
    """A good request with one thing in it replaced."""
    body: Any = inference_body("good")
    part = body
    for step in place[:-1]:
        part = part[step]
    part[place[-1]] = value
    assert isinstance(body, dict)
    return body


def assert_refused_or_answered(answer: httpx.Response) -> None:
    assert answer.status_code == 200 or 400 <= answer.status_code < 500, (answer.status_code, answer.text)
    if answer.status_code != 200:
        assert answer.json()["error"]


@TRIES
@given(place=places, value=anything | tempting)
def test_a_request_with_anything_in_one_place(http: httpx.Client, place: tuple[Any, ...], value: Any) -> None:
    body = json.dumps(changed(place, value)).encode()
    assert_refused_or_answered(http.post(f"{MODEL}/infer", content=body))


@TRIES
@given(body=anything.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=300))
@pytest.mark.parametrize("path", ["infer", "generate", "versions/1/infer"])
def test_a_body_of_anything(http: httpx.Client, path: str, body: bytes) -> None:
    assert_refused_or_answered(http.post(f"{MODEL}/{path}", content=body))


@TRIES
@given(cut=st.integers(0, 200), at=st.integers(0, 120), byte=st.binary(min_size=0, max_size=2))
def test_a_good_body_with_bytes_changed(http: httpx.Client, cut: int, at: int, byte: bytes) -> None:
    good = json.dumps(inference_body("good")).encode()
    body = (good[:at] + byte + good[at + len(byte) :])[: max(0, len(good) - cut)]
    assert_refused_or_answered(http.post(f"{MODEL}/infer", content=body))


@TRIES
@given(
    name=st.sampled_from(["inference-header-content-length", "content-type", "x-slipway-timeout-ms", "accept", "te"]),
    value=st.from_regex(r"\A[!-~]{1,20}\Z"),
)
def test_headers_of_anything(http: httpx.Client, name: str, value: str) -> None:
    body = json.dumps(inference_body("good")).encode()
    headers = {"content-type": "application/json", name: value}
    answer = http.post(f"{MODEL}/infer", content=body, headers=headers)
    # A caller may wish for a millisecond, and get 504.
    assert answer.status_code == 504 or assert_refused_or_answered(answer) is None


REFUSALS = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    # A request may give itself no time.
    grpc.StatusCode.DEADLINE_EXCEEDED,
}


@TRIES
@given(message=st.binary(max_size=200), named=st.booleans())
@pytest.mark.parametrize("method", ["ModelInfer", "ModelMetadata", "ModelReady", "ServerMetadata", "ModelStreamInfer"])
def test_a_message_of_anything(channel: grpc.Channel, method: str, message: bytes, named: bool) -> None:
    call = channel.unary_unary(f"{SERVICE}/{method}", lambda raw: raw, lambda raw: raw)
    outcome = call.future((b"\x0a\x04tiny" if named else b"") + message, timeout=30)
    if outcome.exception() is not None:
        assert outcome.code() in REFUSALS, (outcome.code(), outcome.details())
        assert outcome.details()


def infer_message(place: str, name: str, value: Any) -> bytes:
    """A good request with a parameter more."""
    request = service_pb2.ModelInferRequest(model_name="tiny")
    tensor = request.inputs.add(name="text", datatype="BYTES", shape=[1, 1])
    tensor.contents.bytes_contents.append(b"good")
    output = request.outputs.add(name="label")
    parameters = {"request": request, "input": tensor, "output": output}[place].parameters[name]
    setattr(parameters, value[0], value[1])
    raw = request.SerializeToString()
    assert isinstance(raw, bytes)
    return raw


@pytest.mark.parametrize("place", ["request", "input", "output"])
@pytest.mark.parametrize(
    "name",
    [
        "classification", "shared_memory_region", "shared_memory_byte_size", "shared_memory_offset", "binary_data",
        "binary_data_size", "sequence_id", "sequence_start", "priority", "timeout", "top_k",
        "x-slipway-arrived", "x-slipway-deadline", "",
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    "value",
    [("int64_param", 3), ("int64_param", -1), ("int64_param", 2**62), ("string_param", "x"), ("bool_param", True)],
    ids=str,
)
def test_a_message_with_any_parameter_of_tritons(channel: grpc.Channel, place: str, name: str, value: Any) -> None:
    call = channel.unary_unary(f"{SERVICE}/ModelInfer", lambda raw: raw, lambda raw: raw)
    outcome = call.future(infer_message(place, name, value), timeout=30)
    if outcome.exception() is not None:
        assert outcome.code() in REFUSALS, (outcome.code(), outcome.details())


def test_the_parameter_that_ends_triton_does_not_reach_it(http: httpx.Client, channel: grpc.Channel) -> None:
    body = changed(("outputs", 0, "parameters"), {"classification": 3})
    assert "is not served" in http.post(f"{MODEL}/infer", json=body).json()["error"]
    hidden = json.dumps(body).replace("classification", "cl\\u0061ssification")
    assert "escape" in http.post(f"{MODEL}/infer", content=hidden).json()["error"]
    call = channel.unary_unary(f"{SERVICE}/ModelInfer", lambda raw: raw, lambda raw: raw)
    good = infer_message("output", "classification", ("int64_param", 3))
    # The tag of the outputs in five bytes, with a bit that a parser of 32 bits drops.
    hidden_tag = good.replace(b"\x32", b"\xb2\x80\x80\x80\x10", 1)
    assert hidden_tag != good
    for message in (good, hidden_tag):
        outcome = call.future(message, timeout=30)
        assert outcome.code() == grpc.StatusCode.INVALID_ARGUMENT


def test_a_second_message_can_not_speak_for_the_first(endpoint: serving.Endpoint) -> None:
    def framed(message: bytes) -> bytes:
        return b"\0" + len(message).to_bytes(4, "big") + message

    headers = {"content-type": "application/grpc", "te": "trailers"}
    body = framed(b"\x0a\x05inner") + framed(b"\x0a\x04tiny")
    answer = httpx.post(f"{endpoint.url}{SERVICE}/ModelReady", content=body, headers=headers, timeout=30)
    assert answer.headers["grpc-status"] == "3"
    assert answer.headers["grpc-message"].startswith("one message is expected")


def test_the_endpoint_is_well_afterwards(http: httpx.Client) -> None:
    assert http.post(f"{MODEL}/infer", json=inference_body("good")).status_code == 200
