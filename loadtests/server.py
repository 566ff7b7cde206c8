"""The server under test, as far as this machine knows it: its processes, by whoever listens on the address.

On loopback the load tester sees more than answers: how much processor the server took, how its memory grew, where
Triton's statistics are. No option is needed for that; the port leads to the process that listens, and its mark to the
others of the same endpoint (`slipway.processes`). For another machine there is nothing to see but `--metrics URL`.
"""

import contextlib
import re
from dataclasses import dataclass
from typing import Literal

import psutil

from slipway.processes import mark_of, marked_processes

Role = Literal["triton", "stub", "envoy", "supervisor", "other"]

_ROLES: dict[Role, re.Pattern[str]] = {
    "stub": re.compile(r"triton_python_backend_stub"),
    "triton": re.compile(r"(^|/)tritonserver( |$)"),
    "envoy": re.compile(r"(^|/)envoy( |$)"),
    "supervisor": re.compile(r"serving\.server\.supervisor"),
}
_METRICS_PORT = re.compile(r"--metrics-port[= ](\d+)")


@dataclass(frozen=True)
class Server:
    """Whoever answers at an address of this machine."""

    listener: int
    """The process that listens there."""
    endpoint_id: str | None
    """None if it isn't an endpoint of Slipway."""

    @classmethod
    def at(cls, address: str) -> "Server | None":
        """The one that listens at `number:port`; None if nobody does whom we may look at."""
        port = int(address.rpartition(":")[2])
        with contextlib.suppress(psutil.Error, OSError):
            for found in psutil.net_connections("tcp"):
                listening = found.status == psutil.CONN_LISTEN and found.laddr and found.laddr[1] == port
                if listening and found.pid is not None:
                    return cls(found.pid, mark_of(psutil.Process(found.pid)))
        return None

    def processes(self) -> list[psutil.Process]:
        """All of them that are alive; without a mark the listener and its descendants."""
        if self.endpoint_id is not None:
            return marked_processes(self.endpoint_id)
        with contextlib.suppress(psutil.Error):
            listener = psutil.Process(self.listener)
            return [listener, *listener.children(recursive=True)]
        return []

    def in_role(self, role: Role) -> list[psutil.Process]:
        """Those that do `role`."""
        return [process for process in self.processes() if role_of(process) == role]

    def metrics_url(self) -> str | None:
        """Where Triton's statistics are, by its command line; of the first if there are several."""
        for process in self.in_role("triton"):
            if port := _METRICS_PORT.search(_command(process)):
                return f"http://127.0.0.1:{port[1]}/metrics"
        return None


def role_of(process: psutil.Process) -> Role:
    """What `process` does for its endpoint."""
    command = _command(process)
    return next((role for role, pattern in _ROLES.items() if pattern.search(command)), "other")


def _command(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.Error, OSError):
        return " ".join(process.cmdline())
    return ""
