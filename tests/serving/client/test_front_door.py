"""The client against the front door's refusals: credentials, TLS, limits; what it asks of the model beyond a label."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import serving
from serving import RateLimitedError, RequestRefusedError, Retries, Tls, UnauthenticatedError
from slipway.bundle import Bundle
from slipway.recipe import Serve
from tests.serving.client.scripted_endpoint import Certificates

pytestmark = [pytest.mark.integration]

ONCE = Retries(attempts=1)


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A file of keys and the one key that it lets in."""
    file = tmp_path_factory.mktemp("keys") / "keys.yaml"
    command = [sys.executable, "-m", "slipway", "keys", "new", str(file), "analyst", "--scope", "predict:tiny"]
    made = subprocess.run(command, check=True, capture_output=True, text=True)
    return file, made.stdout.strip().split()[-1]


@pytest.fixture(scope="module")
def guarded(repository: Path, key: tuple[Path, str], certificates: Certificates) -> Iterator[serving.Endpoint]:
    section = Serve.model_validate(
        {
            "port": 0,
            "auth": {"keys": str(key[0])},
            "tls": {"certificate": str(certificates.certificate), "key": str(certificates.key)},
            "limits": {"rate": 10, "burst": 3},
        }
    )
    with serving.start(repository, section) as endpoint:
        yield endpoint


def test_a_key_and_tls_let_a_caller_in_and_the_rate_is_kept(
    guarded: serving.Endpoint, key: tuple[Path, str], certificates: Certificates, make_client: Any, protocol: Any
) -> None:
    tls = Tls(certificates.ca)
    with make_client(guarded.address, "tiny", protocol, api_key=key[1], tls=tls) as client:
        assert [client.classify(["good"])[0].label for _ in range(12)] == ["positive"] * 12
    with make_client(guarded.address, "tiny", protocol, api_key=key[1], tls=tls, retries=ONCE) as client:
        with pytest.raises(RateLimitedError) as caught:
            list(map(client.classify, [["good"]] * 200))
        assert caught.value.retry_after_s
        assert re.search(r"request [0-9a-f-]{32,}", str(caught.value))


def test_a_wrong_key_is_told_so(
    guarded: serving.Endpoint, certificates: Certificates, make_client: Any, protocol: Any
) -> None:
    with (
        make_client(guarded.address, "tiny", protocol, api_key="wrong", tls=Tls(certificates.ca)) as client,
        pytest.raises(UnauthenticatedError),
    ):
        client.classify(["good"])


def test_all_that_the_model_can_tell(
    endpoint: serving.Endpoint, bundle: Bundle, make_client: Any, protocol: Any
) -> None:
    with make_client(endpoint.address, endpoint.model, protocol) as client:
        short, long = client.classify(["good", "good " * 5000], scores=True)
        assert (short.truncated, long.truncated) == (False, True)
        assert set(short.scores) == set(bundle.spec.labels)
        assert sum(short.scores.values()) == pytest.approx(1)
        assert next(iter(short.scores)) == short.label == "positive"
        [answer] = client.classify(["good"], top_k=2)
        assert answer.scores == dict(list(short.scores.items())[:2])
        with pytest.raises(RequestRefusedError, match="top_k"):
            client.classify(["good"], top_k=7)
