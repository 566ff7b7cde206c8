"""How an endpoint is reached: TLS, credentials, keep-alive."""

import re
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from slipway.errors import ServingError

Protocol = Literal["grpc", "http"]

API_KEY_HEADER = "x-api-key"

_MILLISECONDS = 1000
_SENDABLE = re.compile("[!-~]+")


@dataclass(frozen=True)
class Tls:
    """Encryption, and with `certificate` and `key` a proof of who calls (mutual TLS). All files are PEM.

    They are read when the client is made; a client that is to use renewed ones is made anew.
    """

    ca: Path | None = None
    """Certificates of the authorities that may have signed the endpoint's; None: those that the library trusts."""
    certificate: Path | None = None
    """The caller's own, with its chain."""
    key: Path | None = None
    server_name: str | None = None
    """The name in the endpoint's certificate, where it is not the host of the address."""

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            raise ServingError("mutual TLS needs both the certificate and its key.")

    def context(self) -> ssl.SSLContext:
        """For HTTP."""
        try:
            context = ssl.create_default_context(cafile=self.ca)
            if self.certificate is not None:
                context.load_cert_chain(self.certificate, self.key)
        except ssl.SSLError as error:
            raise ServingError(f"TLS: {self._names()} can't be used: {error.reason}.") from error
        except OSError:
            # It doesn't say which file.
            self._contents()
            raise
        return context

    def channel_credentials(self) -> Any:
        """For gRPC."""
        import grpc

        ca, key, chain = self._contents()
        return grpc.ssl_channel_credentials(ca, key, chain)

    def _contents(self) -> list[bytes | None]:
        try:
            return [file.read_bytes() if file is not None else None for file in (self.ca, self.key, self.certificate)]
        except OSError as error:
            raise ServingError(f"TLS: {error.filename}: {error.strerror}.") from error

    def _names(self) -> str:
        return ", ".join(str(file) for file in (self.ca, self.certificate, self.key) if file is not None)


@dataclass(frozen=True)
class Credentials:
    """What the front door is shown.

    `token` may be a function: it is asked before each attempt, so that it can hand out a renewed one, and must be quick
    (cache what it fetches) and, with threads, thread-safe.
    """

    api_key: str | None = field(default=None, repr=False)
    token: str | Callable[[], str] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        for what, secret in (("api_key", self.api_key), ("token", self.token)):
            if isinstance(secret, str):
                _require_sendable(what, secret)

    def headers(self) -> dict[str, str]:
        """As headers of a request; raises `ServingError` if `token` gives what none can hold."""
        found = {}
        if self.api_key is not None:
            found[API_KEY_HEADER] = self.api_key
        if self.token is not None:
            token = self.token
            if callable(token):
                token = token()
                _require_sendable("token", token)
            found["authorization"] = f"Bearer {token}"
        return found


def _require_sendable(what: str, secret: str) -> None:
    """The libraries that send headers refuse such a one, too, and repeat it in their errors."""
    if not _SENDABLE.fullmatch(secret):
        raise ServingError(
            f"{what} must be printable ASCII without spaces, and at least one letter; one that was read from a file "
            "may end with a line break: strip it."
        )


@dataclass(frozen=True)
class KeepAlive:
    """How connections are kept between requests, and how a dead one is found.

    A ping is sent only while a request waits for its answer: servers take pings on an idle connection for abuse.
    Connections that were idle for `idle_s` are closed before a load balancer forgets them silently (350 s is common).
    """

    ping_s: float = 30.0
    """gRPC: without a byte for so long while a request waits, ask whether the server is there."""
    ping_timeout_s: float = 10.0
    idle_s: float = 240.0

    def channel_options(self, tls: Tls | None) -> list[tuple[str, Any]]:
        """As options of a gRPC channel."""
        options: list[tuple[str, Any]] = [
            ("grpc.keepalive_time_ms", int(_MILLISECONDS * self.ping_s)),
            ("grpc.keepalive_timeout_ms", int(_MILLISECONDS * self.ping_timeout_s)),
            ("grpc.keepalive_permit_without_calls", 0),
            ("grpc.client_idle_timeout_ms", int(_MILLISECONDS * self.idle_s)),
            # gRPC's own waits between connection attempts grow to two minutes; the retries have their own.
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 1000),
            # One name may stand for several endpoints.
            ("grpc.lb_policy_name", "round_robin"),
            ("grpc.enable_http_proxy", 0),
        ]
        if tls is not None and tls.server_name is not None:
            options.append(("grpc.ssl_target_name_override", tls.server_name))
        return options
