"""Both clients behind one face, so that one test says what both do; certificates for TLS."""

import asyncio
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from serving import AsyncClient, Client
from tests.serving.client.scripted_endpoint import Certificates


class Blocking:
    """`AsyncClient`, each call run to its end."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._loop = asyncio.new_event_loop()

        async def make() -> AsyncClient:
            return AsyncClient(*arguments, **options)

        self._client = self._loop.run_until_complete(make())

    def classify(self, *arguments: Any, **options: Any) -> Any:
        return self._loop.run_until_complete(self._client.classify(*arguments, **options))

    def score(self, *arguments: Any, **options: Any) -> Any:
        return self._loop.run_until_complete(self._client.score(*arguments, **options))

    def classify_iter(self, *arguments: Any, **options: Any) -> Iterator[Any]:
        answers = self._client.classify_iter(*arguments, **options)
        try:
            while True:
                try:
                    yield self._loop.run_until_complete(anext(answers))
                except StopAsyncIteration:
                    return
        finally:
            self._loop.run_until_complete(answers.aclose())  # type: ignore[attr-defined]

    def close(self) -> None:
        self._loop.run_until_complete(self._client.close())

    def __enter__(self) -> "Blocking":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        self._loop.close()


@pytest.fixture(params=["sync", "async"])
def make_client(request: pytest.FixtureRequest) -> Any:
    """`Client`, or `AsyncClient` made blocking."""
    return Client if request.param == "sync" else Blocking


@pytest.fixture(params=["grpc", "http"])
def protocol(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """An authority, and a certificate of 127.0.0.1 and localhost that it signed."""
    return make_certificates(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="session")
def strangers(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """The same, by an authority that nobody knows."""
    return make_certificates(tmp_path_factory.mktemp("strangers"))


def make_certificates(folder: Path) -> Certificates:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    found = Certificates(folder / "ca.pem", folder / "certificate.pem", folder / "key.pem")
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    authority = [*curve, "-keyout", folder / "ca.key", "-out", found.ca, "-subj", "/CN=authority", "-days", "2"]
    names = ["-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"]
    signed = ["-CA", found.ca, "-CAkey", folder / "ca.key", "-out", found.certificate, "-keyout", found.key]
    for arguments in ([*authority], [*curve, *signed, "-subj", "/CN=endpoint", "-days", "2", *names]):
        subprocess.run(["openssl", "req", "-x509", *map(str, arguments)], check=True, capture_output=True)
    return found
