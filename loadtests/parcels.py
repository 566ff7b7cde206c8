"""Files over the connection that Locust's master and workers have anyway.

Whoever wants a file asks for it piece by piece, and asks again if no answer comes: ZeroMQ drops what is on its way
when a connection breaks, and a router drops what a slow reader's queue has no room for. With one piece under way at a
time nothing piles up, and Locust's heartbeats pass in between. What arrives is held to its digest.

Price: one round trip for each mebibyte.
"""

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import gevent
from gevent.event import AsyncResult

from slipway.artifacts import sha256_file
from slipway.errors import LoadTestError

_ASK, _PIECE = "slipway-ask", "slipway-piece"
_PIECE_BYTES = 1 << 20
_PATIENCE_S = 5.0
_ASKED_TIMES = 6


@dataclass(frozen=True)
class Parcel:
    """A file that another process offers."""

    name: str
    size: int
    sha256: str

    @classmethod
    def of(cls, name: str, file: Path) -> Self:
        """`file` under a name of its own."""
        return cls(name, file.stat().st_size, sha256_file(file))

    def message(self) -> dict[str, Any]:
        """What `Parcel(**…)` takes on the other side."""
        return asdict(self)


class Parcels:
    """What this process offers, and what it fetches. For Locust's thread."""

    def __init__(self, runner: Any, *, master: bool) -> None:
        """`runner` is Locust's, a `master`'s or a worker's."""
        self._runner = runner
        self._master = master
        self._offered: dict[str, Path] = {}
        self._expected: dict[tuple[str, str, int], AsyncResult] = {}
        runner.register_message(_ASK, self._on_ask)
        runner.register_message(_PIECE, self._on_piece)

    def offer(self, name: str, file: Path) -> Parcel:
        """Give `file` to whoever asks for it."""
        self._offered[name] = file
        return Parcel.of(name, file)

    def fetch(self, parcel: Parcel, file: Path, of: str = "") -> None:
        """Write `parcel` to `file`; a master says `of` which worker. Raises `LoadTestError` if it comes to nothing."""
        digest = hashlib.sha256()
        with file.open("wb") as written:
            while written.tell() < parcel.size:
                piece = self._piece(parcel.name, written.tell(), of)
                digest.update(piece)
                written.write(piece)
        if digest.hexdigest() != parcel.sha256:
            raise LoadTestError(f"{parcel.name} of {of or 'the master'} changed while it was fetched.")

    def _piece(self, name: str, at: int, of: str) -> bytes:
        for _ in range(_ASKED_TIMES):
            answer = self._expected[of, name, at] = AsyncResult()
            self._send(_ASK, {"name": name, "at": at}, of)
            try:
                piece: bytes = answer.get(timeout=_PATIENCE_S)
            except gevent.Timeout:
                continue
            if not piece:
                break
            return piece
        raise LoadTestError(f"{of or 'The master'} did not hand over {name}.")

    def _on_ask(self, environment: Any, msg: Any, **_: Any) -> None:  # noqa: ARG002
        name, at = msg.data["name"], msg.data["at"]
        piece = b""
        if name in self._offered:
            with self._offered[name].open("rb") as file:
                file.seek(at)
                piece = file.read(_PIECE_BYTES)
        self._send(_PIECE, {"name": name, "at": at, "bytes": piece}, self._sender(msg))

    def _on_piece(self, environment: Any, msg: Any, **_: Any) -> None:  # noqa: ARG002
        # One that was asked for twice may come twice.
        answer = self._expected.pop((self._sender(msg), msg.data["name"], msg.data["at"]), None)
        if answer is not None:
            answer.set(msg.data["bytes"])

    def _sender(self, msg: Any) -> str:
        """The worker that sent `msg`; empty for the master, whose messages bear the name of who gets them."""
        return str(msg.node_id) if self._master else ""

    def _send(self, kind: str, data: dict[str, Any], to: str) -> None:
        if self._master:
            self._runner.send_message(kind, data, client_id=to)
        else:
            self._runner.send_message(kind, data)
