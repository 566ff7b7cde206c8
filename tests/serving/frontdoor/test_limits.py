"""Limits and deadlines, against a real Envoy: bounded in every direction, and a reason for each refusal."""

import dataclasses
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from tritonclient.utils import InferenceServerException

from serving.frontdoor.credentials import new_key
from serving.frontdoor.door import Auth, Limits
from serving.frontdoor.limits import rate_filter
from serving.frontdoor.overload import bounds, slo_ms
from tests.serving.conftest import eventually
from tests.serving.frontdoor.fake_triton import FakeTriton
from tests.serving.frontdoor.running_door import BODY, INFER, RunningDoor, front_door, infer_input, running

pytestmark = [pytest.mark.integration]


@pytest.fixture(scope="module")
def triton() -> Iterator[FakeTriton]:
    with FakeTriton() as upstream:
        yield upstream


@pytest.fixture(scope="module")
def door(triton: FakeTriton) -> Iterator[RunningDoor]:
    with running(triton.backend(), timeout_s=5.0) as one:
        yield one


def grpc_failure(call: Callable[[], object]) -> str:
    with pytest.raises(InferenceServerException) as caught:
        call()
    return f"{str(caught.value.status()).removeprefix('StatusCode.')}: {caught.value.message()}"


def ask_at_once(ask: Callable[[], Any], requests: int) -> list[Any]:
    with ThreadPoolExecutor(requests) as pool:
        return [future.result() for future in [pool.submit(ask) for _ in range(requests)]]


# Requests in flight


@pytest.mark.parametrize(
    ("protocols", "settings"),
    [
        (("http",), {"limits": Limits(max_in_flight=8)}),
        (("grpc",), {"instances": 3, "max_queue": 5}),
        (("http", "grpc"), {"limits": Limits(max_in_flight=8), "max_queue": 2}),
    ],
)
def test_what_is_in_flight_is_bounded_for_both_protocols_together(
    protocols: tuple[str, ...], settings: dict[str, Any]
) -> None:
    bound = 8
    with FakeTriton() as triton, running(triton.backend(), **settings) as door:

        def ask_http() -> str:
            with door.client() as client:
                answer = client.post(INFER, json=BODY)
                if answer.status_code == 503:
                    assert answer.headers["retry-after"] == "1"
                    assert answer.json() == {"error": "too many requests are in flight; try again shortly"}
                return f"{answer.status_code}"

        def ask_grpc() -> str:
            with door.grpc() as client:
                try:
                    client.infer("tiny", [infer_input()])
                except InferenceServerException as error:
                    return f"{error.status()}: {error.message()}"
            return "200"

        asks = {"http": ask_http, "grpc": ask_grpc}
        triton.gate.clear()
        with ThreadPoolExecutor(40) as pool:
            futures = [pool.submit(asks[protocols[number % len(protocols)]]) for number in range(40)]
            # The refused are refused while the others still wait.
            assert eventually(lambda: sum(future.done() for future in futures) == 40 - bound)
            assert triton.running == bound
            triton.gate.set()
            outcomes = Counter(future.result() for future in futures)
        assert outcomes["200"] == bound
        unavailable = "StatusCode.UNAVAILABLE: too many requests are in flight; try again shortly"
        assert set(outcomes) <= {"200", "503", unavailable}
        assert triton.most_running == bound


def test_the_bound_follows_from_the_objective_and_the_models_own_time(tmp_path: Path) -> None:
    slow = front_door(tmp_path, limits=Limits(slo_ms=60), instances=2, service_ms=20.0)
    quick = front_door(tmp_path, limits=Limits(slo_ms=60), instances=2, service_ms=1.0)
    assert bounds(quick) == (30, 120), "60 ms × 2 instances ÷ 1 ms, and a quarter of it"
    assert bounds(slow) == (4, 6), "one that runs and one that waits for each instance"
    unknown = dataclasses.replace(quick, service_ms=None)
    assert bounds(unknown) == (258, 258), "what runs and what may wait, until the time is measured"
    assert bounds(dataclasses.replace(quick, max_queue=40)) == (30, 42)
    capped = dataclasses.replace(quick, limits=Limits(slo_ms=60, max_in_flight=30))
    assert bounds(capped) == (30, 30)


def test_without_an_objective_it_is_100_ms_or_20_times_the_models_own_time(tmp_path: Path) -> None:
    assert slo_ms(front_door(tmp_path, service_ms=2.0)) == 100
    assert slo_ms(front_door(tmp_path, service_ms=50.0)) == 1000


def test_the_bound_shrinks_when_latency_is_over_the_objective_and_grows_back() -> None:
    limits = Limits(slo_ms=100)
    gauge = "http.front.adaptive_concurrency.gradient_controller.concurrency_limit"
    with (
        FakeTriton() as triton,
        running(triton.backend(), limits=limits, service_ms=2.0) as door,
        door.client() as client,
    ):

        def asked() -> int:
            client.post(INFER, json=BODY)
            return door.stat(gauge)

        floor, ceiling = bounds(door.door)
        assert floor < ceiling
        assert eventually(lambda: asked() == ceiling)
        triton.delay_s = 0.1
        assert eventually(lambda: asked() == floor)
        triton.delay_s = 0.0
        assert eventually(lambda: asked() == ceiling)


# Rates


def test_a_rate_for_all_is_a_429_that_says_when_to_come_back() -> None:
    with FakeTriton() as triton, running(triton.backend(), limits=Limits(rate=0.01, burst=3)) as door:
        with door.client() as client:
            answers = [client.post(INFER, json=BODY) for _ in range(5)]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429]
        assert answers[-1].headers["retry-after"] == "100"
        assert "too many requests" in answers[-1].json()["error"]
        with door.grpc() as grpc:
            assert grpc_failure(lambda: grpc.infer("tiny", [infer_input()])).startswith("RESOURCE_EXHAUSTED: too many")
        with door.client() as client:
            assert client.get("/healthz").status_code == 200
        assert len(triton.requests) == 3


def test_a_rate_for_each_key_lets_one_caller_exhaust_its_own_only(tmp_path: Path) -> None:
    keys = {name: new_key(tmp_path / "keys.json", name, ["predict:tiny"])[1] for name in ("greedy", "modest")}
    limits = Limits(key_rate=0.01, key_burst=2)
    with (
        FakeTriton() as triton,
        running(triton.backend(), limits=limits, auth=Auth(keys=tmp_path / "keys.json")) as door,
        door.client() as client,
    ):

        def ask(name: str) -> int:
            return client.post(INFER, json=BODY, headers={"x-api-key": keys[name]}).status_code

        assert [ask("greedy") for _ in range(4)] == [200, 200, 429, 429]
        assert [ask("modest") for _ in range(3)] == [200, 200, 429]


@pytest.mark.parametrize("rate", [0.01, 0.3, 1.0, 1.5, 499.5])
def test_a_rate_is_held_exactly(tmp_path: Path, rate: float) -> None:
    [limiter] = rate_filter(front_door(tmp_path, limits=Limits(rate=rate)))
    bucket = limiter["typed_config"]["token_bucket"]
    assert bucket["tokens_per_fill"] / float(bucket["fill_interval"].rstrip("s")) == pytest.approx(rate, rel=1e-3)


# Deadlines


def test_the_model_hears_when_a_request_arrived_and_until_when_it_counts(door: RunningDoor, triton: FakeTriton) -> None:
    before = time.time()
    with door.client() as client, door.grpc() as grpc:
        client.post(INFER, json=BODY)
        grpc.infer("tiny", [infer_input()])
    for asked in triton.requests[-2:]:
        arrived, deadline = float(asked["x-slipway-arrived"]), float(asked["x-slipway-deadline"])
        assert before - 0.01 <= arrived <= time.time() + 0.01
        assert deadline - arrived == pytest.approx(5.0, abs=0.002)


def test_a_caller_may_wish_for_less_but_not_for_more(door: RunningDoor, triton: FakeTriton) -> None:
    def given(**headers: str) -> float:
        with door.client() as client:
            client.post(INFER, json=BODY, headers={name.replace("_", "-"): value for name, value in headers.items()})
        asked = triton.requests[-1]
        return float(asked["x-slipway-deadline"]) - float(asked["x-slipway-arrived"])

    assert given(x_slipway_timeout_ms="4000") == pytest.approx(4.0, abs=0.002)
    assert given(x_slipway_timeout_ms="60000") == pytest.approx(5.0, abs=0.002)
    with door.grpc() as grpc:
        grpc.infer("tiny", [infer_input()], client_timeout=4.0)
    asked = triton.requests[-1]
    assert float(asked["x-slipway-deadline"]) - float(asked["x-slipway-arrived"]) <= 4.01


@pytest.mark.parametrize("wish", ["0", "-1", "soon", "1.5", "999999999", "", "5, 7"])
def test_a_wish_that_is_no_time_is_a_400(door: RunningDoor, wish: str) -> None:
    with door.client() as client:
        answer = client.post(INFER, json=BODY, headers={"x-slipway-timeout-ms": wish})
    assert answer.status_code == 400
    assert "whole number of milliseconds" in answer.json()["error"]


def test_no_answer_in_time_is_a_504(door: RunningDoor, triton: FakeTriton) -> None:
    triton.gate.clear()
    try:
        with door.client() as client:
            answer = client.post(INFER, json=BODY, headers={"x-slipway-timeout-ms": "50"})
            assert answer.status_code == 504
            assert "no answer within" in answer.json()["error"]
        with door.grpc() as grpc:
            headers = {"x-slipway-timeout-ms": "50"}
            failure = grpc_failure(lambda: grpc.infer("tiny", [infer_input()], headers=headers))
            assert failure.startswith("DEADLINE_EXCEEDED: no answer within")
    finally:
        triton.gate.set()


def test_what_triton_or_the_model_call_unavailable_because_it_is_late_is_a_504(
    door: RunningDoor, triton: FakeTriton
) -> None:
    with door.client() as client, door.grpc() as grpc:
        for reason in ("Request timeout expired", "the deadline passed before the model could begin; allow more time"):
            triton.failure = reason
            assert client.post(INFER, json=BODY).status_code == 504
            assert grpc_failure(lambda: grpc.infer("tiny", [infer_input()])) == f"DEADLINE_EXCEEDED: {reason}"
        triton.failure = "the queue is full"
        answer = client.post(INFER, json=BODY)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert grpc_failure(lambda: grpc.infer("tiny", [infer_input()])) == "UNAVAILABLE: the queue is full"
        triton.failure = ""


def test_what_callers_put_into_reserved_headers_does_not_come_through(door: RunningDoor, triton: FakeTriton) -> None:
    reserved = {
        "x-slipway-arrived": "1", "x-slipway-deadline": "1", "x-request-id": "mine",
        "x-envoy-upstream-rq-timeout-ms": "1", "x-envoy-max-retries": "9", "x-envoy-retry-on": "5xx",
        "x-envoy-internal": "true", "x-envoy-original-path": "/v2/repository/index",
    }  # fmt: skip
    with door.client() as client:
        answer = client.post(INFER, json=BODY, headers=reserved)
        assert answer.status_code == 200
    asked = triton.requests[-1]
    assert float(asked["x-slipway-arrived"]) > 1
    assert float(asked["x-slipway-deadline"]) > 1
    assert answer.headers["x-request-id"] == asked["x-request-id"] != "mine"
    assert not {"x-envoy-max-retries", "x-envoy-retry-on", "x-envoy-internal", "x-envoy-original-path"} & set(asked)


# Sizes and shapes of requests


def test_a_body_over_the_limit_is_a_413(door: RunningDoor) -> None:
    with door.client() as client:
        answer = client.post(INFER, content=b'{"a": "' + b"a" * 100_000)
        assert answer.status_code == 413
        assert answer.json() == {"error": "the body is larger than 100000 bytes; send less at a time"}
    with door.grpc() as grpc:
        failure = grpc_failure(lambda: grpc.infer("tiny", [infer_input(b"a" * 100_001)]))
        assert failure.startswith("RESOURCE_EXHAUSTED: the body is larger than 100000 bytes")


def test_headers_over_the_limit_are_a_431(door: RunningDoor) -> None:
    with door.client() as client:
        assert client.post(INFER, json=BODY, headers={"x-long": "a" * 20_000}).status_code == 431
        many = {f"x-{number}": "a" for number in range(80)}
        assert client.post(INFER, json=BODY, headers=many).status_code == 431


@pytest.mark.slow
def test_callers_that_drip_are_cut_off_and_hold_no_place() -> None:
    with FakeTriton() as triton, running(triton.backend(), limits=Limits(max_in_flight=1)) as door:
        drips = {
            "headers": b"POST " + INFER.encode() + b" HTTP/1.1\r\nhost: a\r\nx-slow: ",
            "body": b"POST " + INFER.encode() + b' HTTP/1.1\r\nhost: a\r\ncontent-length: 99\r\n\r\n{"a": ',
        }
        connections = {}
        for name, drip in drips.items():
            connections[name] = socket.create_connection(("127.0.0.1", door.port), timeout=60)
            connections[name].sendall(drip)
        with door.client() as client:
            assert client.post(INFER, json=BODY).status_code == 200
        for connection in connections.values():
            received = b""
            while chunk := connection.recv(65_536):
                received += chunk
            assert received == b"" or b"408" in received.partition(b"\r\n")[0]
            connection.close()


SMUGGLED = b"GET /v2/repository/index HTTP/1.1\r\nhost: a\r\n\r\n"


TWO_WAYS = [
    b"content-length: 5\r\ntransfer-encoding: chunked\r\n",
    b"content-length: 5\r\ncontent-length: 6\r\n",
    b"content-length: +5\r\n",
    b"content-length: 5,6\r\n",
    b"transfer-encoding: xchunked\r\n",
    b"transfer-encoding: chunked, identity\r\n",
    b"transfer-encoding : chunked\r\n",
    b"x_api_key: a\r\ncontent-length: 0\r\n",
    b"content-length: 0\r\nx: a\x00b\r\n",
    b"content-length: 0\r\n x: folded\r\n",
]


def test_requests_that_can_be_read_in_two_ways_are_refused_and_their_connections_closed(
    door: RunningDoor, triton: FakeTriton
) -> None:
    def ask(head: bytes) -> bytes:
        with socket.create_connection(("127.0.0.1", door.port), timeout=10) as connection:
            connection.sendall(b"POST " + INFER.encode() + b" HTTP/1.1\r\nhost: a\r\n" + head + b"\r\n" + SMUGGLED)
            received = b""
            while chunk := connection.recv(65_536):
                received += chunk
            return received

    before = len(triton.requests)
    # Envoy lingers for a second before it closes, so all at a time.
    with ThreadPoolExecutor(len(TWO_WAYS)) as pool:
        for head, received in zip(TWO_WAYS, pool.map(ask, TWO_WAYS), strict=True):
            assert received.startswith((b"HTTP/1.1 400", b"HTTP/1.1 501")), head
            assert received.count(b"HTTP/1.1") == 1, head
    assert len(triton.requests) == before


@pytest.mark.parametrize("version", [b"HTTP/1.0", b"HTTP/0.9", b"HTTP/3.7"])
def test_other_versions_of_http_are_refused(door: RunningDoor, version: bytes) -> None:
    with socket.create_connection(("127.0.0.1", door.port), timeout=10) as connection:
        connection.sendall(b"GET /healthz " + version + b"\r\nhost: a\r\n\r\n")
        assert not connection.recv(65_536).startswith(b"HTTP/1.1 200")


def test_connections_beyond_the_limit_are_closed_and_the_others_served() -> None:
    with FakeTriton() as triton, running(triton.backend(), max_connections=3) as door:
        kept = [httpx.Client(base_url=door.url) for _ in range(3)]
        assert {client.post(INFER, json=BODY).status_code for client in kept} == {200}
        with door.client() as fourth, pytest.raises(httpx.TransportError):
            fourth.post(INFER, json=BODY)
        assert {client.post(INFER, json=BODY).status_code for client in kept} == {200}
        for client in kept:
            client.close()


def test_every_answer_has_security_headers_and_no_version(door: RunningDoor) -> None:
    with door.client() as client:
        answers = [
            client.post(INFER, json=BODY), client.get("/healthz"), client.get("/nothing"), client.get(INFER),
            client.post(INFER, content=b"{"), client.get("/openapi.json"),
            client.post(INFER, content=b" " * 200_000),
        ]  # fmt: skip
    for answer in answers:
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["server"] == "slipway"
        assert answer.headers["x-request-id"]
        assert "strict-transport-security" not in answer.headers
        assert "x-envoy-upstream-service-time" not in answer.headers
