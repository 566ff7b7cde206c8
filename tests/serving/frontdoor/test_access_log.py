"""The access log, as a real Envoy writes it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tritonclient.utils import InferenceServerException

from serving.frontdoor.credentials import new_key
from serving.frontdoor.door import Auth
from tests.serving.conftest import eventually
from tests.serving.frontdoor.fake_triton import FakeTriton
from tests.serving.frontdoor.running_door import BODY, INFER, RunningDoor, infer_input, running

pytestmark = [pytest.mark.integration]

SECRETS = ("slw_", "secretquery", "secrettext", "secretcookie", "secretheader")


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    file = tmp_path_factory.mktemp("log") / "keys.json"
    return file, new_key(file, "web-shop", ["predict:tiny"])[1]


@pytest.fixture(scope="module")
def door(key: tuple[Path, str]) -> Iterator[RunningDoor]:
    with FakeTriton() as triton, running(triton.backend(), auth=Auth(keys=key[0])) as one:
        yield one


def line_of(door: RunningDoor, request_id: str) -> dict[str, Any]:
    found: list[dict[str, Any]] = []

    def is_there() -> bool:
        found[:] = [line for line in door.log() if line["request_id"] == request_id]
        return bool(found)

    assert eventually(is_there)
    [line] = found
    return line


def test_a_line_says_who_asked_what_how_long_it_took_and_who_answered(door: RunningDoor, key: tuple[Path, str]) -> None:
    with door.client(headers={"x-api-key": key[1]}) as client:
        answer = client.post(f"{INFER}?q=secretquery", json=BODY)
    line = line_of(door, answer.headers["x-request-id"])
    assert line["caller"] == "web-shop"
    assert (line["model"], line["version"], line["backend"], line["route"]) == ("tiny", "1", "stable", "infer")
    assert (line["method"], line["path"], line["protocol"], line["status"]) == ("POST", INFER, "HTTP/1.1", 200)
    assert line["peer"] == "127.0.0.1"
    assert line["sent_bytes"] == len(answer.content)
    assert line["received_bytes"] > 0
    assert 0 <= line["upstream_ms"] <= line["duration_ms"]
    assert line["time"].endswith("Z")


@pytest.mark.parametrize(
    ("path", "body", "authorized", "status", "route"),
    [
        (INFER, b"{", True, 400, "infer"),
        (INFER, b"{}", False, 401, "infer"),
        ("/v2/models/tiny/stats", None, True, 403, "administration"),
        ("/nothing", b"{}", True, 404, "unknown path"),
        (INFER, None, True, 405, "wrong method"),
        (INFER, b'{"a": "' + b"a" * 200_000, True, 413, "infer"),
    ],
)
def test_refused_requests_are_in_it_too(
    door: RunningDoor, key: tuple[Path, str], path: str, body: bytes | None, authorized: bool, status: int, route: str
) -> None:
    headers = {"x-api-key": key[1]} if authorized else {}
    with door.client(headers=headers) as client:
        answer = client.get(path) if body is None else client.post(path, content=body)
    assert answer.status_code == status
    line = line_of(door, answer.headers["x-request-id"])
    assert (line["status"], line["route"]) == (status, route)
    assert line["caller"] == ("web-shop" if authorized else None)
    assert line["upstream_ms"] is None


def test_grpc_has_its_status_in_it(door: RunningDoor, key: tuple[Path, str]) -> None:
    with door.grpc() as client:
        client.infer("tiny", [infer_input()], headers={"x-api-key": key[1]})
        with pytest.raises(InferenceServerException):
            client.infer("tiny", [infer_input()])
    wanted = {("ModelInfer", "OK", "web-shop"), ("ModelInfer", "Unauthenticated", None)}
    assert eventually(lambda: wanted <= {(line["route"], line["grpc_status"], line["caller"]) for line in door.log()})


def test_no_text_no_query_and_no_credential_is_in_it(door: RunningDoor, key: tuple[Path, str]) -> None:
    secret = {"x-other": "secretheader", "cookie": "secretcookie", "user-agent": "secretheader"}
    with door.client(headers={"x-api-key": key[1], **secret}) as client:
        answer = client.post(f"{INFER}?q=secretquery", json={"inputs": ["secrettext"]})
        client.post(f"{INFER}?q=secretquery", content=b'{"secrettext')
    line_of(door, answer.headers["x-request-id"])
    text = door.door.access_log.read_text() + (door.directory / "envoy.log").read_text()
    assert not [secret for secret in SECRETS if secret in text]
