"""TLS and mutual TLS, on both protocols."""

from typing import Any

import pytest

from serving import EndpointUnavailableError, Retries, Tls
from slipway.errors import ServingError
from tests.serving.client.scripted_endpoint import Certificates, ScriptedEndpoint

pytestmark = [pytest.mark.integration]

ONCE = Retries(attempts=1)


def test_both_sides_prove_who_they_are(make_client: Any, protocol: Any, certificates: Certificates) -> None:
    tls = Tls(certificates.ca, certificates.certificate, certificates.key)
    with (
        ScriptedEndpoint(protocol, tls=certificates) as endpoint,
        make_client(endpoint.address, "tiny", protocol, tls=tls) as client,
    ):
        assert client.classify(["abc"])[0].label == "cba"


def test_an_endpoint_of_an_unknown_authority_is_not_spoken_to(
    make_client: Any, protocol: Any, certificates: Certificates, strangers: Certificates
) -> None:
    tls = Tls(strangers.ca, certificates.certificate, certificates.key)
    with (
        ScriptedEndpoint(protocol, tls=certificates) as endpoint,
        make_client(endpoint.address, "tiny", protocol, tls=tls, retries=ONCE) as client,
    ):
        with pytest.raises(EndpointUnavailableError):
            client.classify(["abc"], timeout_s=10)
        assert endpoint.received == []


def test_a_caller_without_a_certificate_is_not_let_in(
    make_client: Any, protocol: Any, certificates: Certificates
) -> None:
    with (
        ScriptedEndpoint(protocol, tls=certificates) as endpoint,
        make_client(endpoint.address, "tiny", protocol, tls=Tls(certificates.ca), retries=ONCE) as client,
    ):
        with pytest.raises(EndpointUnavailableError):
            client.classify(["abc"], timeout_s=10)
        assert endpoint.received == []


def test_the_name_in_the_certificate_is_checked(make_client: Any, protocol: Any, certificates: Certificates) -> None:
    files = (certificates.ca, certificates.certificate, certificates.key)
    with ScriptedEndpoint(protocol, tls=certificates) as endpoint:
        with make_client(endpoint.address, "tiny", protocol, tls=Tls(*files, server_name="localhost")) as client:
            assert client.classify(["abc"])[0].label == "cba"
        wrong = Tls(*files, server_name="other.example")
        with (
            make_client(endpoint.address, "tiny", protocol, tls=wrong, retries=ONCE) as client,
            pytest.raises(EndpointUnavailableError),
        ):
            client.classify(["abc"], timeout_s=10)


def test_a_missing_file_is_named(make_client: Any, protocol: Any, certificates: Certificates) -> None:
    with pytest.raises(ServingError, match=r"missing\.pem"):
        make_client("127.0.0.1:1", "tiny", protocol, tls=Tls(certificates.ca.with_name("missing.pem")))


def test_a_certificate_needs_its_key(certificates: Certificates) -> None:
    with pytest.raises(ServingError, match="key"):
        Tls(certificate=certificates.certificate)
