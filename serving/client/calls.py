"""What both clients share: the settings of a call, and the headers of an attempt."""

import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass

from serving.client.connecting import Credentials, KeepAlive, Protocol, Tls
from serving.client.messages import TIMEOUT_MS
from serving.client.retries import Retries
from serving.protocol import MAX_ROWS, REQUEST_ID
from slipway.errors import ServingError

_ADDRESS = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\s:/@\[\]]+):[0-9]{1,5}")


@dataclass(frozen=True)
class Calls:
    """How calls are made; the arguments of `Client`."""

    address: str
    model: str
    protocol: Protocol
    timeout_s: float
    credentials: Credentials
    tls: Tls | None
    retries: Retries
    keep_alive: KeepAlive

    def __post_init__(self) -> None:
        if not _ADDRESS.fullmatch(self.address):
            raise ServingError(
                f"address {self.address!r} is not host:port, such as 127.0.0.1:8080 or [::1]:8080; it has no scheme "
                "and no path."
            )
        if self.protocol not in ("grpc", "http"):
            raise ServingError(f"protocol {self.protocol!r} is not known; grpc and http are.")

    def headers(self, request_id: str, seconds: float) -> dict[str, str]:
        """Of an attempt that may take so many seconds."""
        milliseconds = max(1, int(1000 * seconds))
        return {REQUEST_ID: request_id, TIMEOUT_MS: str(milliseconds), **self.credentials.headers()}


def calls(
    address: str,
    model: str,
    protocol: Protocol,
    *,
    timeout_s: float,
    api_key: str | None,
    token: str | Callable[[], str] | None,
    tls: Tls | None,
    retries: Retries | None,
    keep_alive: KeepAlive | None,
) -> Calls:
    """The settings that a client is made with; raises `ServingError` if they make no sense."""
    return Calls(
        address,
        model,
        protocol,
        timeout_s,
        Credentials(api_key, token),
        tls,
        retries or Retries(),
        keep_alive or KeepAlive(),
    )


def new_request_id() -> str:
    """One that nobody else has; all attempts of a request share it."""
    return secrets.token_hex(16)


def require_batch(batch: int, in_flight: int) -> None:
    """Raise `ServingError` if so many texts can't be sent at a time."""
    if not 1 <= batch <= MAX_ROWS:
        raise ServingError(f"batch is {batch}; a request holds 1 to {MAX_ROWS} texts.")
    if in_flight < 1:
        raise ServingError(f"in_flight is {in_flight}; it must be at least 1.")
