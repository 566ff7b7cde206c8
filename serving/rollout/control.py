"""How a running endpoint is talked to: a Unix socket in its runtime directory, for its user only, lines of JSON.

One line asks, one or more lines answer:

    {"do": "describe"}                                → {"kind": "description", …}
    {"do": "promote", "repository": "/…", "rollout": {…}, "texts": […]}
                                                      → {"kind": "note", "message": …}, …, {"kind": "ended", …}
    {"do": "abort"}                                   → {"kind": "note" | "refused", "message": …}

Whoever may write to the socket may have any file that this user can read be served as a model, and a model may be code;
that is no more than the user can do anyway, and the directory lets in nobody else. Alternatives weighed: a port of the
loopback, which every user of the machine reaches; an admin route of the front door, which the network reaches.

What rolls out does so in the supervisor, so a line that can't be delivered stops nothing. The supervisor's module is
not imported: it runs as `__main__`, and would be there twice.
"""

import contextlib
import json
import socketserver
import threading
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from serving.rollout.promotion import Promotion
    from serving.server.supervisor import Supervisor

SOCKET = "control.sock"

_LONGEST_LINE = 64 << 20

Answer = dict[str, Any]


def listen(supervisor: "Supervisor") -> None:
    """Answer on the endpoint's control socket from now on, in threads of their own."""
    path = supervisor.runtime.path / SOCKET
    path.unlink(missing_ok=True)
    server = _Server(str(path), Control(supervisor))
    path.chmod(0o600)
    threading.Thread(target=server.serve_forever, daemon=True, name="control socket").start()


class Control:
    """What can be asked; one promotion at a time."""

    def __init__(self, supervisor: "Supervisor") -> None:
        self._supervisor = supervisor
        self._lock = threading.Lock()
        self._promotion: Promotion | None = None
        self._is_running = False

    def describe(self) -> Answer:
        """What is served, and how the promotion goes or went."""
        supervisor, promotion = self._supervisor, self._promotion
        stable = supervisor.fleet.stable.release
        return {
            "kind": "description",
            "model": supervisor.plan.model,
            "host": supervisor.plan.host,
            "port": supervisor.fleet.front.port,
            **asdict(stable),
            "settings": supervisor.plan.settings,
            "promotion": asdict(promotion.progress) if promotion is not None else None,
        }

    def promote(self, request: Answer, tell: "Tell") -> Answer:
        """Go the whole way; returns how it ended."""
        from serving.rollout.promotion import Promotion
        from slipway.recipe.rollout import Rollout

        with self._lock:
            if self._is_running:
                return _refused("another version is being promoted; wait, or end it: slipway promote --abort.")
            self._is_running = True
        try:
            promotion = self._promotion = Promotion(
                self._supervisor,
                Path(request["repository"]),
                Rollout.model_validate_json(json.dumps(request["rollout"])),
                request["texts"],
                lambda message: tell(_note(message)),
            )
            progress = promotion.run()
            self._supervisor.note(f"version {progress.version} was {progress.state}: {progress.message}")
            return {"kind": "ended", **asdict(progress)}
        finally:
            self._is_running = False

    def abort(self) -> Answer:
        """Have the promotion that is under way go back."""
        if self._promotion is None or not self._is_running:
            return _refused("nothing is being promoted.")
        self._promotion.abort()
        return _note(f"version {self._promotion.progress.version} is taken back.")


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True

    def __init__(self, path: str, control: Control) -> None:
        self.control = control
        super().__init__(path, _Handler)


class Tell:
    """Writes lines to whoever asked, as long as that one listens."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __call__(self, answer: Answer) -> None:
        """Write one; in vain if nobody listens any more."""
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(json.dumps(answer).encode() + b"\n")
            self._stream.flush()


class _Handler(socketserver.StreamRequestHandler):
    server: _Server

    def handle(self) -> None:
        tell = Tell(self.wfile)
        try:
            request = json.loads(self.rfile.readline(_LONGEST_LINE))
            tell(self._answer(request, tell))
        except Exception as error:
            tell(_refused(f"this can't be answered: {type(error).__name__}: {error}"))

    def _answer(self, request: Answer, tell: Tell) -> Answer:
        control = self.server.control
        match request["do"]:
            case "describe":
                return control.describe()
            case "promote":
                return control.promote(request, tell)
            case "abort":
                return control.abort()
            case unknown:
                return _refused(f"{unknown!r} can't be done; describe, promote and abort can.")


def _note(message: str) -> Answer:
    return {"kind": "note", "message": message}


def _refused(message: str) -> Answer:
    return {"kind": "refused", "message": message}
