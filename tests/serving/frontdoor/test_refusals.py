"""What a caller asks for in the wrong way gets the status and the words that tell how to ask."""

import http.client
import json
import socket
from collections.abc import Iterator

import pytest

from tests.serving.frontdoor.fake_triton import FakeTriton
from tests.serving.frontdoor.running_door import BODY, INFER, RunningDoor, running

pytestmark = [pytest.mark.integration]


@pytest.fixture(scope="module")
def door() -> Iterator[RunningDoor]:
    with FakeTriton() as triton, running(triton.backend()) as one:
        yield one


def answer_to(door: RunningDoor, head: bytes) -> tuple[int, str, dict[str, str]]:
    """Status, reason and headers of the answer to what no client library would send."""
    with socket.create_connection(("127.0.0.1", door.port), timeout=10) as connection:
        connection.sendall(head + b"\r\n\r\n")
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        headers = {name.lower(): value for name, value in answer.getheaders()}
        return answer.status, json.loads(answer.read())["error"], headers


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "PUT", "PATCH", "DELETE", "TRACE"])
@pytest.mark.parametrize("path", [INFER, "/v2/models/tiny/versions/1/generate"])
def test_inference_with_another_method_is_told_that_it_takes_post(door: RunningDoor, method: str, path: str) -> None:
    with door.client() as client:
        answer = client.request(method, path)
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


@pytest.mark.parametrize("method", ["OPTIONS", "POST", "PUT", "PATCH", "DELETE", "TRACE"])
@pytest.mark.parametrize("path", ["/v2", "/v2/models/tiny", "/v2/models/tiny/versions/1/ready", "/openapi.json"])
def test_what_is_only_read_is_told_that_it_takes_get(door: RunningDoor, method: str, path: str) -> None:
    with door.client() as client:
        answer = client.request(method, path)
    assert (answer.status_code, answer.json()) == (405, {"error": "use GET"})
    assert "GET" in answer.headers["allow"]


def test_a_tunnel_is_a_405_and_not_a_failure_of_the_check(door: RunningDoor) -> None:
    status, reason, _ = answer_to(door, b"CONNECT elsewhere:443 HTTP/1.1\r\nhost: elsewhere:443")
    assert (status, reason) == (405, "this is no proxy")


@pytest.mark.parametrize(
    ("head", "status", "words"),
    [
        (b"GET /healthz HTTP/1.1", 400, "Host"),
        (b"GET /v2%00 HTTP/1.1\r\nhost: a", 400, "path"),
        (b"GET /v2#x HTTP/1.1\r\nhost: a", 400, "path"),
        (b"OPTIONS * HTTP/1.1\r\nhost: a", 404, "path"),
        (b"FOO / HTTP/1.1\r\nhost: a", 400, "method"),
        (b"GET / HTTP/1.1\r\nhost: a\r\nx : a", 400, "headers"),
        (b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: -1", 400, "length"),
        (b"GET / HTTP/1.0\r\nhost: a", 426, "HTTP/1.1"),
        (b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip", 501, "Transfer-Encoding"),
    ],
)
def test_what_is_no_request_is_told_why(door: RunningDoor, head: bytes, status: int, words: str) -> None:
    found, reason, headers = answer_to(door, head)
    assert found == status
    assert words in reason
    assert headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("protocol", ["websocket", "h2c", "TLS/1.0, HTTP/2.0"])
def test_an_offer_of_another_protocol_is_declined_by_an_answer(door: RunningDoor, protocol: str) -> None:
    offer = {"connection": "upgrade", "upgrade": protocol}
    with door.client() as client:
        assert client.post(INFER, json=BODY, headers=offer).status_code == 200
        assert client.get("/nothing", headers=offer).status_code == 404
