"""Bearer tokens (JWT), against a real Envoy: who signed, for whom, until when, for what."""

import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tritonclient.utils import InferenceServerException

from serving.frontdoor.credentials import new_key, read_jwks
from serving.frontdoor.door import Auth
from slipway.errors import ServingError
from tests.serving.conftest import eventually
from tests.serving.frontdoor.authority import Issuer, write_jwks
from tests.serving.frontdoor.fake_triton import FakeTriton
from tests.serving.frontdoor.running_door import BODY, INFER, RunningDoor, infer_input, running

pytestmark = [pytest.mark.integration]


UNUSABLE: list[dict[str, Any]] = [
    {"kty": "RSA"},
    {"kty": "AKP", "alg": "ML-DSA-44", "pub": "AQAB"},
    {**Issuer().jwk(), "crv": "secp256k1"},
    {**Issuer().jwk(), "alg": "ES512"},
    {**Issuer().jwk(), "use": "enc"},
    {**Issuer().jwk(), "x": "!"},
    {**Issuer().jwk(), "kid": 1},
    {**Issuer().jwk(), "kty": ["EC"]},
]


class Guarded:
    """A front door that takes tokens of `issuer` and the API key `key`."""

    def __init__(self, door: RunningDoor, issuer: Issuer, jwks: Path, key: str) -> None:
        self.door, self.issuer, self.jwks, self.key = door, issuer, jwks, key

    def ask(self, token: str) -> tuple[int, str]:
        with self.door.client(headers={"authorization": f"Bearer {token}"}) as client:
            answer = client.post(INFER, json=BODY)
            return answer.status_code, answer.json().get("error", "")


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    directory = tmp_path_factory.mktemp("tokens")
    issuer, jwks = Issuer(), directory / "jwks.json"
    write_jwks(jwks, issuer)
    key = new_key(directory / "keys.json", "web", ["predict:tiny"])[1]
    auth = Auth(directory / "keys.json", jwks, issuer="https://issuer.test", audiences=("slipway",), clock_skew_s=30)
    with FakeTriton() as triton, running(triton.backend(), auth=auth) as door:
        yield Guarded(door, issuer, jwks, key)


@pytest.mark.parametrize(
    "claims",
    [
        {},
        {"aud": ["other", "slipway"]},
        {"scope": "openid predict:tiny admin:tiny"},
        {"scope": ["predict:*"]},
        {"expires_in": -10},
        {"sub": None},
    ],
    ids=["plain", "one of several audiences", "words", "a list", "expired within the clock skew", "no subject"],
)
def test_a_token_with_the_scope_is_let_in(guarded: Guarded, claims: dict[str, Any]) -> None:
    assert guarded.ask(guarded.issuer.token(**claims)) == (200, "")


@pytest.mark.parametrize(
    ("claims", "why"),
    [
        ({"expires_in": -3600}, "expired"),
        ({"exp": None}, ""),
        ({"nbf": time.time() + 3600}, "not yet valid"),
        ({"iss": "https://elsewhere.test"}, "issuer"),
        ({"aud": "other"}, "udience"),
        ({"aud": None}, "udience"),
    ],
)
def test_a_token_that_is_not_for_now_or_not_for_here_is_a_401(
    guarded: Guarded, claims: dict[str, Any], why: str
) -> None:
    status, reason = guarded.ask(guarded.issuer.token(**claims))
    assert status == 401
    assert why in reason


def test_a_token_that_somebody_else_signed_is_a_401(guarded: Guarded) -> None:
    assert guarded.ask(Issuer().token())[0] == 401


def test_a_token_without_a_signature_is_a_401(guarded: Guarded) -> None:
    _, body, _ = guarded.issuer.token().split(".")
    assert guarded.ask(f"eyJhbGciOiJub25lIn0.{body}.")[0] == 401


@pytest.mark.parametrize(
    "scope",
    [None, "", "predict", "predict:other", "admin:tiny", ["predict:tinyx"], {"a": 1}, {"a": "predict:tiny"}, 7],
)
def test_a_token_without_the_scope_is_a_403(guarded: Guarded, scope: Any) -> None:
    status, reason = guarded.ask(guarded.issuer.token(scope=scope))
    assert (status, reason) == (403, "these credentials lack the scope predict:tiny")


def test_grpc_says_the_same(guarded: Guarded) -> None:
    def ask(token: str) -> str:
        with guarded.door.grpc() as client:
            try:
                client.infer("tiny", [infer_input()], headers={"authorization": f"Bearer {token}"})
            except InferenceServerException as error:
                return str(error.status())
        return "OK"

    assert ask(guarded.issuer.token()) == "OK"
    assert ask(guarded.issuer.token(expires_in=-3600)) == "StatusCode.UNAUTHENTICATED"
    assert ask(guarded.issuer.token(scope="")) == "StatusCode.PERMISSION_DENIED"


def test_a_token_in_the_query_is_not_taken(guarded: Guarded) -> None:
    with guarded.door.client() as client:
        answer = client.post(f"{INFER}?access_token={guarded.issuer.token()}", json=BODY)
    assert answer.status_code == 401
    assert "an API key in x-api-key or as a bearer token, or a bearer token of https://issuer.test" in answer.text


@pytest.mark.parametrize("scheme", ["bearer", "BEARER"])
def test_the_name_of_the_scheme_is_taken_in_any_case(guarded: Guarded, scheme: str) -> None:
    with guarded.door.client(headers={"authorization": f"{scheme} {guarded.issuer.token()}"}) as client:
        assert client.post(INFER, json=BODY).status_code == 200
    with guarded.door.client(headers={"authorization": f"{scheme} {Issuer().token()}"}) as client:
        assert client.post(INFER, json=BODY).status_code == 401


def test_an_api_key_is_taken_as_well(guarded: Guarded) -> None:
    assert guarded.ask(guarded.key) == (200, "")


def test_the_log_knows_the_subject(guarded: Guarded) -> None:
    guarded.ask(guarded.issuer.token(sub="risk-desk"))
    assert eventually(lambda: any(line["caller"] == "risk-desk" for line in guarded.door.log()))


def test_an_issuer_may_change_its_keys_while_it_runs(guarded: Guarded) -> None:
    successor = Issuer("two")
    assert guarded.ask(successor.token())[0] == 401
    write_jwks(guarded.jwks, guarded.issuer, successor)
    guarded.door.write()
    assert eventually(lambda: guarded.ask(successor.token())[0] == 200)
    assert guarded.ask(guarded.issuer.token())[0] == 200


def test_keys_that_no_token_is_verified_with_stand_in_nobodys_way(guarded: Guarded) -> None:
    successor = Issuer("three")
    guarded.jwks.write_text(json.dumps({"keys": [*UNUSABLE, guarded.issuer.jwk(), successor.jwk()], "at": math.nan}))
    guarded.door.write()
    assert eventually(lambda: guarded.ask(successor.token())[0] == 200)
    assert guarded.ask(guarded.issuer.token())[0] == 200


@pytest.mark.unit
@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("{", "not a JSON Web Key Set"),
        ("[" * 100_000, "not a JSON Web Key Set"),
        ('{"keys": []}', "has no keys"),
        ('{"keys": [{"kty": "oct", "k": "c2VjcmV0"}]}', "has a secret in it"),
        (json.dumps({"keys": [{**Issuer().jwk(), "d": "private"}]}), "has a secret in it"),
        *((json.dumps({"keys": [key]}), "no key that a token can be verified with") for key in UNUSABLE),
    ],
    ids=[
        "not JSON",
        "endless JSON",
        "empty",
        "shared secret",
        "private key",
        *(f"unusable {key['kty']}" for key in UNUSABLE),
    ],
)
def test_a_jwks_that_is_no_good_is_refused(tmp_path: Path, content: str, why: str) -> None:
    (tmp_path / "jwks.json").write_text(content)
    with pytest.raises(ServingError, match=why):
        read_jwks(tmp_path / "jwks.json")
