"""API keys: the file that they are kept in, and what Envoy does with them over both protocols."""

import datetime
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tritonclient.utils import InferenceServerException

from serving.frontdoor import credentials
from serving.frontdoor.credentials import new_key, read_jwks, read_keys, revoke_key
from serving.frontdoor.door import Auth
from slipway.errors import ServingError
from tests.serving.conftest import eventually
from tests.serving.frontdoor.fake_triton import FakeTriton
from tests.serving.frontdoor.running_door import BODY, INFER, RunningDoor, infer_input, running

ADMIN_PATHS = ("/v2/models/tiny/config", "/v2/models/tiny/stats")
HEALTH_PATHS = ("/healthz", "/v2/health/ready", "/v2/health/live")


class Guarded:
    """A front door with keys of every kind."""

    def __init__(self, door: RunningDoor, triton: FakeTriton, file: Path, keys: dict[str, str]) -> None:
        self.door, self.triton, self.file, self.keys = door, triton, file, keys

    def ask(self, headers: dict[str, str], path: str = INFER) -> httpx.Response:
        with self.door.client(headers=headers) as client:
            return (
                client.get(path) if path.endswith(("config", "stats", "tiny", "json")) else client.post(path, json=BODY)
            )

    def ask_grpc(self, headers: dict[str, str], call: str = "infer") -> str:
        """The status code and message of a call over gRPC."""
        calls: dict[str, Any] = {
            "infer": lambda client: client.infer("tiny", [infer_input()], headers=headers),
            "config": lambda client: client.get_model_config("tiny", headers=headers),
            "ready": lambda client: client.is_server_ready(headers=headers),
            "index": lambda client: client.get_model_repository_index(headers=headers),
        }
        with self.door.grpc() as client:
            try:
                calls[call](client)
            except InferenceServerException as error:
                return f"{str(error.status()).removeprefix('StatusCode.')}: {error.message()}"
        return "OK"


KEYS = {
    "predictor": ["predict:tiny"],
    "administrator": ["predict:tiny", "admin:tiny"],
    "anywhere": ["predict:*"],
    "elsewhere": ["predict:other", "admin:other"],
}


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    file = tmp_path_factory.mktemp("keys") / "keys.json"
    keys = {name: new_key(file, name, scopes)[1] for name, scopes in KEYS.items()}
    keys["expired"] = new_key(file, "expired", ["predict:tiny"], valid_for=datetime.timedelta(seconds=-1))[1]
    with FakeTriton() as triton, running(triton.backend(), auth=Auth(keys=file)) as door:
        yield Guarded(door, triton, file, keys)


@pytest.mark.unit
def test_a_key_is_kept_as_a_hash_in_a_file_for_its_owner(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    kept, key = new_key(file, "web", ["predict:tiny"], valid_for=datetime.timedelta(days=30))
    assert key not in file.read_text()
    assert file.stat().st_mode & 0o077 == 0
    assert read_keys(file) == (kept,)
    assert kept.grants("predict", "tiny")
    assert not kept.grants("admin", "tiny")


@pytest.mark.unit
def test_a_key_that_is_revoked_is_gone_and_the_others_stay(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    for name in ("one", "two"):
        new_key(file, name, ["predict:*"])
    revoke_key(file, "one")
    assert [key.id for key in read_keys(file)] == ["two"]
    with pytest.raises(ServingError, match="has no key 'one'; it has: two"):
        revoke_key(file, "one")


@pytest.mark.unit
def test_an_id_is_given_once(tmp_path: Path) -> None:
    new_key(tmp_path / "keys.json", "web", ["predict:*"])
    with pytest.raises(ServingError, match="already has a key 'web'"):
        new_key(tmp_path / "keys.json", "web", ["predict:*"])


@pytest.mark.unit
@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"id": "a b"}, "key id"),
        ({"sha256": "abc"}, "64 hexadecimal"),
        ({"scopes": []}, "give it a scope"),
        ({"scopes": ["write:tiny"]}, "not predict:MODEL or admin:MODEL"),
        ({"expires": "soon"}, "not a time"),
        ({"expires": "2030-01-01T00:00:00"}, "needs a time zone"),
        ({"color": "red"}, "not a file of keys.*key 1 has 'color', which means nothing"),
        ({"scopes": "predict:tiny"}, "not a file of keys.*key 1 has scopes that are no list of texts"),
        ({"sha256": 7}, "not a file of keys.*key 1 has another sha256 than a text"),
    ],
)
def test_a_file_that_is_wrong_says_where(tmp_path: Path, row: dict[str, Any], why: str) -> None:
    good = {"id": "web", "sha256": "0" * 64, "scopes": ["predict:*"], "created": "2026-01-01T00:00:00Z"}
    (tmp_path / "keys.json").write_text(json.dumps({"keys": [good | row]}))
    with pytest.raises(ServingError, match=why):
        read_keys(tmp_path / "keys.json")


@pytest.mark.unit
@pytest.mark.parametrize(
    "content",
    ["", "[]", '{"keys": [', "[" * 100_000, "{}", '{"keys": null}', '{"keys": ""}', '{"keys": {"id": "a"}}'],
    ids=["empty", "a list", "half", "endless", "no keys", "null", "a text", "an object"],
)
def test_a_file_that_is_none_of_keys_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "keys.json").write_text(content)
    with pytest.raises(ServingError, match="not a file of keys"):
        read_keys(tmp_path / "keys.json")


@pytest.mark.unit
def test_a_mark_in_front_of_utf_8_is_read_over(tmp_path: Path) -> None:
    kept, _ = new_key(tmp_path / "keys.json", "web", ["predict:tiny"])
    marked = tmp_path / "marked.json"
    marked.write_bytes(b"\xef\xbb\xbf" + (tmp_path / "keys.json").read_bytes())
    assert read_keys(marked) == (kept,)
    revoke_key(marked, "web")
    assert read_keys(marked) == ()


@pytest.mark.unit
@pytest.mark.parametrize(
    ("content", "why"),
    [
        ('{"keys": []}'.encode("utf-16"), "looks like UTF-16; save it as UTF-8."),
        ('{"keys": []}'.encode("utf-16-le"), "looks like UTF-16; save it as UTF-8."),
        (b'{"keys": [\n{"id": "caf\xe9"}]}', "is not UTF-8: line 2 has the byte 0xe9; save it as UTF-8."),
        (b'{"keys": [\n{"id": }]}', "line 2 is not JSON."),
    ],
)
@pytest.mark.parametrize("read", [read_keys, read_jwks])
def test_what_is_wrong_with_a_file_of_credentials_is_one_line_of_our_own(
    tmp_path: Path, read: Callable[[Path], object], content: bytes, why: str
) -> None:
    file = tmp_path / "credentials.json"
    file.write_bytes(content)
    with pytest.raises(ServingError) as refused:
        read(file)
    assert str(refused.value).startswith(str(file))
    assert str(refused.value).endswith(why)
    assert "codec" not in str(refused.value)


@pytest.mark.integration
@pytest.mark.parametrize("name", ["predictor", "administrator", "anywhere"])
def test_a_key_with_the_scope_is_let_in(guarded: Guarded, name: str) -> None:
    key = guarded.keys[name]
    for headers in ({"x-api-key": key}, {"authorization": f"Bearer {key}"}, {"authorization": f"bearer {key}"}):
        assert guarded.ask(headers).status_code == 200
        assert guarded.ask_grpc(headers) == "OK"


@pytest.mark.integration
@pytest.mark.parametrize(
    ("headers", "why"),
    [
        ({}, "credentials are needed: an API key"),
        ({"x-api-key": ""}, "the API key is not known here"),
        ({"x-api-key": "slw_" + "a" * 32}, "the API key is not known here"),
        ({"x-api-key": "a" * 5000}, "the API key is not known here"),
        ({"authorization": "Bearer slw_wrong"}, "the API key is not known here"),
        ({"authorization": "Bearer a.b.c"}, "not an API key of this endpoint"),
        ({"authorization": "Basic dXNlcjpwYXNz"}, "credentials are needed"),
        ({"authorization": "Bearer"}, "credentials are needed"),
        ({"x-api-key": "' or 1=1 --"}, "the API key is not known here"),
    ],
)
def test_no_or_bad_credentials_are_a_401_that_says_how(guarded: Guarded, headers: dict[str, str], why: str) -> None:
    before = len(guarded.triton.requests)
    answer = guarded.ask(headers)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith('Bearer realm="slipway"')
    assert list(answer.json()) == ["error"]
    assert why in answer.json()["error"]
    assert guarded.ask_grpc(headers).startswith(f"UNAUTHENTICATED: {why}") or why in guarded.ask_grpc(headers)
    assert guarded.ask_grpc(headers).startswith("UNAUTHENTICATED")
    assert len(guarded.triton.requests) == before


@pytest.mark.integration
def test_a_key_past_its_time_is_a_401(guarded: Guarded) -> None:
    headers = {"x-api-key": guarded.keys["expired"]}
    assert guarded.ask(headers).json() == {"error": "the API key has expired"}
    assert guarded.ask_grpc(headers) == "UNAUTHENTICATED: the API key has expired"


@pytest.mark.integration
@pytest.mark.parametrize("expires", ["1970-01-01T00:00:00Z", "0001-01-01T00:00:00Z"])
def test_a_time_before_all_counting_is_past_and_not_never(guarded: Guarded, expires: str) -> None:
    good = guarded.file.read_text()
    rows = json.loads(good)["keys"]
    try:
        guarded.file.write_text(json.dumps({"keys": [{**row, "expires": expires} for row in rows]}))
        guarded.door.write()
        headers = {"x-api-key": guarded.keys["predictor"]}
        assert eventually(lambda: guarded.ask(headers).text == '{"error":"the API key has expired"}\n')
    finally:
        guarded.file.write_text(good)
        guarded.door.write()
    assert eventually(lambda: guarded.ask(headers).status_code == 200)


@pytest.mark.integration
def test_a_key_for_another_model_is_a_403_that_names_the_scope(guarded: Guarded) -> None:
    headers = {"x-api-key": guarded.keys["elsewhere"]}
    answer = guarded.ask(headers)
    assert answer.status_code == 403
    assert answer.json() == {"error": "these credentials lack the scope predict:tiny"}
    assert 'error="insufficient_scope"' in answer.headers["www-authenticate"]
    assert guarded.ask_grpc(headers) == "PERMISSION_DENIED: these credentials lack the scope predict:tiny"


@pytest.mark.integration
@pytest.mark.parametrize("path", ADMIN_PATHS)
def test_configuration_and_statistics_take_the_scope_admin(guarded: Guarded, path: str) -> None:
    assert guarded.ask({"x-api-key": guarded.keys["predictor"]}, path).status_code == 403
    assert guarded.ask({"x-api-key": guarded.keys["administrator"]}, path).status_code == 200
    assert guarded.ask_grpc({"x-api-key": guarded.keys["predictor"]}, "config").startswith("PERMISSION_DENIED")
    assert guarded.ask_grpc({"x-api-key": guarded.keys["administrator"]}, "config") == "OK"


@pytest.mark.integration
def test_no_scope_opens_the_repository_and_no_path_is_told_to_strangers(guarded: Guarded) -> None:
    path = "/v2/repository/models/tiny/unload"
    assert guarded.ask({"x-api-key": guarded.keys["administrator"]}, path).status_code == 404
    assert guarded.ask({}, path).status_code == 401
    assert guarded.ask_grpc({"x-api-key": guarded.keys["administrator"]}, "index").startswith("UNIMPLEMENTED")
    assert guarded.ask_grpc({}, "index").startswith("UNAUTHENTICATED")


@pytest.mark.integration
def test_health_needs_no_credentials(guarded: Guarded) -> None:
    with guarded.door.client() as client:
        assert [client.get(path).status_code for path in ("/healthz", "/v2/health/ready", "/v2/health/live")] == [
            200
        ] * 3
    assert guarded.ask_grpc({}, "ready") == "OK"


@pytest.mark.integration
def test_a_key_reaches_neither_triton_nor_the_log(guarded: Guarded) -> None:
    key = guarded.keys["predictor"]
    answer = guarded.ask({"x-api-key": key, "authorization": f"Bearer {key}", "cookie": "a=secret"})
    guarded.ask_grpc({"x-api-key": key})
    assert key not in str(guarded.triton.requests)
    assert "secret" not in str(guarded.triton.requests)
    request = answer.headers["x-request-id"]
    assert eventually(lambda: any(line["request_id"] == request for line in guarded.door.log()))
    assert key not in guarded.door.door.access_log.read_text()
    assert key not in (guarded.door.directory / "envoy.log").read_text()
    for file in guarded.door.directory.rglob("*.json"):
        assert key not in file.read_text()


@pytest.mark.integration
def test_keys_come_and_go_while_it_runs(guarded: Guarded) -> None:
    before = credentials.fingerprint(guarded.door.door)
    assert not credentials.changed(guarded.door.door, before)
    _, key = new_key(guarded.file, "late", ["predict:tiny"])
    assert credentials.changed(guarded.door.door, before)
    guarded.door.write()
    with guarded.door.client(headers={"x-api-key": key}) as client:
        assert eventually(lambda: client.post(INFER, json=BODY).status_code == 200)
        revoke_key(guarded.file, "late")
        guarded.door.write()
        assert eventually(lambda: client.post(INFER, json=BODY).status_code == 401)
        assert client.headers["x-api-key"] == key


@pytest.mark.integration
@pytest.mark.parametrize("content", ['{"keys": []}', '{"keys": {}}'])
def test_a_file_without_a_key_lets_nobody_in(guarded: Guarded, content: str) -> None:
    good = guarded.file.read_text()
    with guarded.door.client(headers={"x-api-key": guarded.keys["predictor"]}) as client:
        guarded.file.write_text(content)
        guarded.door.write()
        assert eventually(lambda: client.post(INFER, json=BODY).status_code == 401)
        assert guarded.ask({}).status_code == 401
        assert guarded.ask_grpc({"x-api-key": guarded.keys["predictor"]}).startswith("UNAUTHENTICATED")
        guarded.file.write_text(good)
        guarded.door.write()
        assert eventually(lambda: client.post(INFER, json=BODY).status_code == 200)


@pytest.mark.integration
def test_a_file_that_became_bad_changes_nothing(guarded: Guarded) -> None:
    good = guarded.file.read_text()
    try:
        guarded.file.write_text("{")
        with pytest.raises(ServingError, match="not a file of keys"):
            guarded.door.write()
        assert guarded.ask({"x-api-key": guarded.keys["predictor"]}).status_code == 200
    finally:
        guarded.file.write_text(good)
