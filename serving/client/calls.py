"""What both clients are made with, and the headers of an attempt."""

import os
import re
import secrets
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

from serving.client.connecting import Credentials, KeepAlive, Protocol, Tls
from serving.client.errors import RequestRefusedError
from serving.client.messages import LONGEST_TIMEOUT_MS, TIMEOUT_MS, Outputs
from serving.client.retries import Deadline, Retries
from serving.protocol import MAX_ROWS, REQUEST_ID
from slipway.errors import ServingError

Connection = TypeVar("Connection")

_ADDRESS = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\s:/@\[\]]+):[0-9]{1,5}")
_LARGEST_PORT = 65535


class Caller(ABC, Generic[Connection]):
    """Whoever calls one model of one endpoint; `Connection` is how, from threads or from an event loop."""

    def __init__(
        self,
        address: str,
        model: str,
        protocol: Protocol = "grpc",
        *,
        timeout_s: float = 30.0,
        api_key: str | None = None,
        token: str | Callable[[], str] | None = None,
        tls: Tls | None = None,
        retries: Retries | None = None,
        keep_alive: KeepAlive | None = None,
    ) -> None:
        """Raises `ServingError` if these make no sense, or a file of `tls` can't be used; nothing is sent yet."""
        # Of a larger number, gRPC takes the lowest 16 bits: some other server's port.
        if not _ADDRESS.fullmatch(address) or not 0 < int(address.rpartition(":")[2]) <= _LARGEST_PORT:
            raise ServingError(
                f"address {address!r} is not host:port, such as 127.0.0.1:8080 or [::1]:8080; it has no scheme "
                "and no path."
            )
        if protocol not in ("grpc", "http"):
            raise ServingError(f"protocol {protocol!r} is not known; grpc and http are.")
        self._model = model
        self._timeout_s = timeout_s
        self._credentials = Credentials(api_key, token)
        self._retries = retries or Retries()
        self._outputs: Outputs | None = None
        self._process = os.getpid()
        self._connection = self._connect(address, protocol, tls, keep_alive or KeepAlive())

    @abstractmethod
    def _connect(self, address: str, protocol: Protocol, tls: Tls | None, keep_alive: KeepAlive) -> Connection:
        """The connection that calls go through."""

    @property
    def _is_forked(self) -> bool:
        """Whether this is a copy, and the connections are another process's, which goes on with them."""
        return os.getpid() != self._process

    def _deadline(self, timeout_s: float | None) -> Deadline:
        """Of a call that begins now; raises `RuntimeError` in a forked process."""
        if self._is_forked:
            raise RuntimeError(
                "the client was made before os.fork, and its connections are that process's; make one in this one"
            )
        return Deadline(self._timeout_s if timeout_s is None else timeout_s)

    def _headers(self, request_id: str, seconds: float) -> dict[str, str]:
        """Of an attempt that may take so many seconds."""
        milliseconds = int(min(max(1, 1000 * seconds), LONGEST_TIMEOUT_MS))
        return {REQUEST_ID: request_id, TIMEOUT_MS: str(milliseconds), **self._credentials.headers()}


def new_request_id() -> str:
    """One that nobody else has; all attempts of a request share it."""
    return secrets.token_hex(16)


def require_texts(texts: object) -> None:
    """Raise `RequestRefusedError` for a single text, which is a sequence of texts, too: its letters."""
    if isinstance(texts, (str, bytes)):
        raise RequestRefusedError("texts is a single text; give a list of texts, such as [text]")


def require_list(texts: object) -> None:
    """Raise `RequestRefusedError` for what can't be cut into requests; a generator, a set, a mapping."""
    require_texts(texts)
    if not hasattr(texts, "__len__") or not hasattr(texts, "__getitem__") or isinstance(texts, Mapping):
        raise RequestRefusedError(
            f"texts is a {type(texts).__name__}; give a list of texts, or call classify_iter, which takes any iterable"
        )


def require_batch(batch: int, in_flight: int) -> None:
    """Raise `ServingError` if so many texts can't be sent at a time."""
    if not 1 <= batch <= MAX_ROWS:
        raise ServingError(f"batch is {batch}; a request holds 1 to {MAX_ROWS} texts.")
    if in_flight < 1:
        raise ServingError(f"in_flight is {in_flight}; it must be at least 1.")
