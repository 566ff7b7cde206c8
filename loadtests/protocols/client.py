"""What every protocol's client is: it asks one model at one address, and its errors say whose fault they are."""

import errno
import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from loadtests.access import Access

_LONGEST_DETAIL = 300
_OWN_SHORTAGES = tuple(
    os.strerror(number).lower() for number in (errno.EMFILE, errno.ENFILE, errno.EADDRNOTAVAIL, errno.ENOBUFS)
)


class RequestError(Exception):
    """The endpoint answered with an error, or the connection failed."""

    def __init__(
        self, message: str, *, unreachable: bool = False, unknown_model: bool = False, refused: bool = False
    ) -> None:
        super().__init__(" ".join(message.split())[:_LONGEST_DETAIL])
        self.unreachable = unreachable
        self.unknown_model = unknown_model
        self.refused = refused
        """The credentials were not taken."""

    @property
    def exhausted(self) -> bool:
        """This machine had no socket, port or buffer left: the generator's failure, not the endpoint's."""
        said = str(self).lower()
        return any(shortage in said for shortage in _OWN_SHORTAGES)


@dataclass(frozen=True)
class Answer:
    """Labels in the order of the texts, and the version of the model that says so (empty if it doesn't say)."""

    labels: list[str]
    version: str = ""


class Client(ABC):
    """Asks one model at one address; made and used within one event loop."""

    def __init__(self, address: str, model: str, access: Access | None = None, connections: int | None = None) -> None:
        """`address` is `host:port`, the host an IP address (in brackets when IPv6); `connections` take turns."""
        self.address = address
        self.model = model
        self.access = access or Access()
        self.connections = connections

    @abstractmethod
    async def ask(self, texts: Sequence[str]) -> Answer:
        """The answer to `texts`. Raises `RequestError`; waits for as long as it is let."""

    @abstractmethod
    async def close(self) -> None:
        """Drop every connection and what is still out on it."""


def unreadable(error: Exception) -> RequestError:
    """The answer came and can't be understood."""
    return RequestError(f"the answer has no readable output 'label': {error!r}")


def unknown_model(status: str, message: str) -> bool:
    """Whether an error says that the model is not there."""
    return status in ("NOT_FOUND", "404") or "unknown model" in message.lower()
