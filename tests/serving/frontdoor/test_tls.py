"""TLS and mutual TLS, against a real Envoy, over both protocols."""

import shutil
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import grpc
import httpx
import pytest
import tritonclient.grpc as triton_grpc

from serving.frontdoor import credentials
from serving.frontdoor.door import Tls
from serving.frontdoor.dynamic import read_credentials
from slipway.errors import ServingError
from tests.serving.conftest import eventually
from tests.serving.frontdoor.authority import CertificateAuthority
from tests.serving.frontdoor.fake_triton import FakeTriton
from tests.serving.frontdoor.running_door import BODY, INFER, RunningDoor, front_door, infer_input, running

pytestmark = [pytest.mark.integration]


class Secured:
    """A front door under TLS, the authority of its certificate, and that of its callers'."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.authority = CertificateAuthority("authority")
        self.callers = CertificateAuthority("callers")
        self.certificate, self.key = self.authority.issue("server", directory)
        self.ca = self.authority.write(directory / "ca.pem")
        self.client_ca = self.callers.write(directory / "callers.pem")
        self.door: RunningDoor

    def context(self, caller: tuple[Path, Path] | None = None) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.ca))
        if caller is not None:
            context.load_cert_chain(*caller)
        return context

    def ask(self, context: ssl.SSLContext) -> httpx.Response:
        with httpx.Client(base_url=f"https://{self.door.address}", verify=context, timeout=20) as client:
            return client.post(INFER, json=BODY)

    def ask_grpc(self, caller: tuple[Path, Path] | None = None) -> str:
        certificates = (caller[1].read_bytes(), caller[0].read_bytes()) if caller else (None, None)
        options = grpc.ssl_channel_credentials(self.ca.read_bytes(), *certificates)
        with triton_grpc.InferenceServerClient(self.door.address, ssl=True, creds=options) as client:
            return str(client.infer("tiny", [infer_input()]).get_response().model_name)


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    about = Secured(tmp_path_factory.mktemp("tls"))
    with FakeTriton() as triton, running(triton.backend(), tls=Tls(about.certificate, about.key)) as about.door:
        yield about


@pytest.fixture(scope="module")
def mutual(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    about = Secured(tmp_path_factory.mktemp("mtls"))
    tls = Tls(about.certificate, about.key, about.client_ca)
    with FakeTriton() as triton, running(triton.backend(), tls=tls) as about.door:
        yield about


def test_http_and_grpc_are_answered_under_tls(secured: Secured) -> None:
    answer = secured.ask(secured.context())
    assert answer.status_code == 200
    assert answer.headers["strict-transport-security"].startswith("max-age=")
    assert secured.ask_grpc() == "stable"


def test_plain_http_is_not_answered(secured: Secured) -> None:
    with secured.door.client() as client, pytest.raises(httpx.HTTPError):
        client.post(INFER, json=BODY)


def test_tls_before_1_2_is_refused(secured: Secured) -> None:
    context = secured.context()
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(httpx.ConnectError):
        secured.ask(context)


def test_http2_is_agreed_on(secured: Secured) -> None:
    context = secured.context()
    context.set_alpn_protocols(["h2", "http/1.1"])
    with (
        socket.create_connection(("127.0.0.1", secured.door.port)) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as tls,
    ):
        assert tls.selected_alpn_protocol() == "h2"


def test_a_renewed_certificate_is_taken_while_it_runs(secured: Secured) -> None:
    before = credentials.fingerprint(secured.door.door)
    successor = CertificateAuthority("successor")
    renewed, key = successor.issue("renewed", secured.directory)
    old = secured.ca.read_bytes()
    context = secured.context()
    with httpx.Client(base_url=f"https://{secured.door.address}", verify=context) as kept:
        assert kept.post(INFER, json=BODY).status_code == 200
        # In place, and in two steps, as people do.
        shutil.copy(renewed, secured.certificate)
        with pytest.raises(ServingError, match="not a certificate and its own"):
            secured.door.write()
        shutil.copy(key, secured.key)
        assert credentials.changed(secured.door.door, before)
        secured.door.write()
        successor.write(secured.ca)

        def is_renewed() -> bool:
            try:
                return secured.ask(secured.context()).status_code == 200
            except httpx.ConnectError:
                return False

        assert eventually(is_renewed)
        assert kept.post(INFER, json=BODY).status_code == 200
    secured.ca.write_bytes(old + secured.ca.read_bytes())


def test_a_caller_with_a_certificate_is_let_in(mutual: Secured) -> None:
    caller = mutual.callers.issue("caller", mutual.directory)
    assert mutual.ask(mutual.context(caller)).status_code == 200
    assert mutual.ask_grpc(caller) == "stable"


def test_a_caller_without_one_is_not(mutual: Secured) -> None:
    with pytest.raises(httpx.HTTPError):
        mutual.ask(mutual.context())


def test_a_caller_with_somebody_elses_is_not(mutual: Secured) -> None:
    stranger = CertificateAuthority("stranger").issue("stranger", mutual.directory)
    with pytest.raises(httpx.HTTPError):
        mutual.ask(mutual.context(stranger))


@pytest.mark.unit
def test_files_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(ServingError, match=r"missing\.pem: No such file"):
        read_credentials(front_door(tmp_path, tls=Tls(tmp_path / "missing.pem", tmp_path / "missing.key")))
