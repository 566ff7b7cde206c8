"""Credentials and TLS of a whole endpoint: what a recipe asks for is what callers meet, and files are watched."""

import ssl
from pathlib import Path

import httpx
import pytest

import serving
from serving.frontdoor.credentials import new_key, revoke_key
from serving.protocol import inference_body
from slipway.errors import ServingError
from slipway.recipe import Auth, Serve, Tls
from tests.serving.conftest import eventually
from tests.serving.frontdoor.authority import CertificateAuthority

pytestmark = [pytest.mark.integration]

INFER = "/v2/models/tiny/infer"


def test_an_address_that_others_reach_is_not_served_without_credentials(repository: Path) -> None:
    with pytest.raises(ServingError, match=r"0\.0\.0\.0 can be reached from other machines.*slipway keys new"):
        serving.start(repository, Serve(port=0, host="0.0.0.0"))  # noqa: S104


def test_the_loopback_can_be_refused_without_credentials_too(repository: Path) -> None:
    with pytest.raises(ServingError, match="keyless is never"):
        serving.start(repository, Serve(port=0, auth=Auth(keyless="never")))


def test_keyless_must_be_asked_for(repository: Path) -> None:
    with pytest.raises(ServingError, match=r"nobody said who may call.*--keyless"):
        serving.serve(repository, Serve(port=0))


def test_keyless_says_so_loudly(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with serving.start(repository, Serve(port=0)) as endpoint:
        assert httpx.post(f"{endpoint.url}{INFER}", json=inference_body("good"), timeout=30).status_code == 200
    assert "WARNING: no authentication" in " ".join(capsys.readouterr().err.split())


def test_a_file_of_keys_that_is_not_there_ends_the_start(repository: Path, tmp_path: Path) -> None:
    with pytest.raises(ServingError, match="the keys can't be read"):
        serving.start(repository, Serve(port=0, auth=Auth(keys=str(tmp_path / "missing.json"))))


def test_keys_and_tls_of_a_recipe_hold_and_change_without_a_restart(
    repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    authority = CertificateAuthority("authority")
    certificate, private = authority.issue("server", tmp_path)
    ca = authority.write(tmp_path / "ca.pem")
    keys = tmp_path / "keys.json"
    keys.write_text('{"keys": []}')
    section = Serve(port=0, auth=Auth(keys=str(keys)), tls=Tls(certificate=str(certificate), key=str(private)))
    with (
        serving.start(repository, section) as endpoint,
        httpx.Client(base_url=endpoint.url, verify=ssl.create_default_context(cafile=str(ca)), timeout=30) as client,
    ):

        def ask(key: str) -> int:
            return client.post(INFER, json=inference_body("good"), headers={"x-api-key": key}).status_code

        assert endpoint.url.startswith("https://")
        assert ask("slw_wrong") == 401
        assert "keys.json has no keys: nobody is let in by one" in " ".join(capsys.readouterr().err.split())
        first = new_key(keys, "first", ["predict:tiny"])[1]
        assert eventually(lambda: ask(first) == 200)
        assert ask("slw_wrong") == 401
        second = new_key(keys, "second", ["predict:tiny"])[1]
        assert eventually(lambda: ask(second) == 200)
        revoke_key(keys, "first")
        assert eventually(lambda: ask(first) == 401)
        assert ask(second) == 200
        keys.write_text("{")
        assert ask(second) == 200
        keys.write_text('{"keys": {}}')
        assert eventually(lambda: ask(second) == 401)
    assert "keys.json has no keys: nobody is let in by one" in " ".join(capsys.readouterr().err.split())
