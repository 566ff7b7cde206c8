"""TLS for HTTP and gRPC alike, and mutual TLS: who calls must show a certificate of the given authorities, too.

Envoy reads certificates where they are; no copy of a private key is made. It reads them again when `certificate.json`
is moved into place, which happens after the new pair was checked here: a certificate that doesn't belong to its key
never replaces one that does. Connections that are open keep what they have agreed on.
"""

import ssl
from pathlib import Path

from serving.frontdoor.door import FrontDoor, Tls
from serving.frontdoor.xds import typed, watched
from serving.protocol import Json
from slipway.errors import ServingError

CERTIFICATE, AUTHORITIES = "certificate", "authorities"

_SECRET = "extensions.transport_sockets.tls.v3.Secret"  # noqa: S105


def transport_socket(tls: Tls, directory: Path) -> Json:
    """The listener's side: TLS 1.2 or 1.3, HTTP/2 or HTTP/1.1."""
    common: Json = {
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
        "alpn_protocols": ["h2", "http/1.1"],
        "tls_certificate_sds_secret_configs": [
            {"name": CERTIFICATE, "sds_config": watched(directory / f"{CERTIFICATE}.json")}
        ],
    }
    if tls.client_ca is not None:
        common["validation_context_sds_secret_config"] = {
            "name": AUTHORITIES,
            "sds_config": watched(directory / f"{AUTHORITIES}.json"),
        }
    return {
        "name": "envoy.transport_sockets.tls",
        "typed_config": typed(
            "extensions.transport_sockets.tls.v3.DownstreamTlsContext",
            common_tls_context=common,
            require_client_certificate=tls.client_ca is not None,
        ),
    }


def secrets(door: FrontDoor, directory: Path) -> dict[str, Json]:
    """The resources of `certificate.json` and `authorities.json`."""
    tls = door.tls
    if tls is None:
        return {}
    # A move into this directory makes Envoy read the files again, wherever they are.
    bell = {"path": str(directory)}
    found = {
        CERTIFICATE: typed(
            _SECRET,
            name=CERTIFICATE,
            tls_certificate={
                "certificate_chain": {"filename": str(tls.certificate)},
                "private_key": {"filename": str(tls.key)},
                "watched_directory": bell,
            },
        )
    }
    if tls.client_ca is not None:
        context = {"trusted_ca": {"filename": str(tls.client_ca)}, "watched_directory": bell}
        found[AUTHORITIES] = typed(_SECRET, name=AUTHORITIES, validation_context=context)
    return found


def require_tls(tls: Tls) -> None:
    """Raise `ServingError` if a file is no good."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    for file in filter(None, (tls.certificate, tls.key, tls.client_ca)):
        try:
            file.open("rb").close()
        except OSError as error:
            raise ServingError(f"TLS: {file}: {error.strerror}.") from error
    try:
        # A key that asks for a passphrase would wait for somebody at a terminal.
        context.load_cert_chain(tls.certificate, tls.key, password=lambda: b"")
    except (ssl.SSLError, ValueError) as error:
        raise ServingError(
            f"TLS: {tls.certificate} and {tls.key} are not a certificate and its own unencrypted key, in PEM: {error}."
        ) from error
    if tls.client_ca is not None:
        try:
            context.load_verify_locations(tls.client_ca)
        except (ssl.SSLError, ValueError) as error:
            raise ServingError(f"TLS: {tls.client_ca} has no certificate authorities in PEM: {error}.") from error
