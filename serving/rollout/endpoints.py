"""The running endpoints of this user, found by their control sockets; an endpoint that has died doesn't answer on its.

Every endpoint has a directory in one place (`serving.server.runtime`), so there is no list that could be out of date.
"""

import json
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serving.rollout.control import SOCKET
from serving.server.endpoint import join_address
from serving.server.runtime import endpoints_directory
from slipway.errors import ServingError

_TIMEOUT_S = 5.0


@dataclass(frozen=True)
class RunningEndpoint:
    """An endpoint that answers on its control socket."""

    socket: Path
    model: str
    address: str
    version: int
    repository: str
    digest: str
    settings: dict[str, Any]
    promotion: dict[str, Any] | None


def running_endpoints() -> list[RunningEndpoint]:
    """All of this user's."""
    found = []
    for path in sorted(endpoints_directory().glob(f"*/{SOCKET}")):
        try:
            found.append(_describe(path))
        except (OSError, ValueError, LookupError):
            continue
    return found


def find_endpoint(model: str | None, address: str | None) -> RunningEndpoint:
    """The one with that model, at that address; raises `ServingError` if there is none, or several."""
    running = running_endpoints()
    found = [
        one for one in running if model in (None, one.model) and address in (None, one.address, _port(one.address))
    ]
    if len(found) == 1:
        return found[0]
    there = ", ".join(f"{one.model} at {one.address}" for one in running) or "none"
    wanted = " ".join(filter(None, (f"of {model}" if model else "", f"at {address}" if address else "")))
    if not found:
        raise ServingError(
            f"no endpoint {wanted} is running".replace("  ", " ")
            + f" for this user with this TMPDIR (running: {there}). Start one with slipway serve."
        )
    raise ServingError(f"several endpoints {wanted} are running: {there}. Choose one with --address.")


def ask(endpoint: RunningEndpoint, request: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Send `request` and yield the answers as they come; raises `ServingError` if the endpoint ends meanwhile."""
    try:
        yield from _ask(endpoint.socket, request, None)
    except OSError as error:
        raise ServingError(f"the endpoint at {endpoint.address} ended: {error.strerror}.") from error


def _describe(path: Path) -> RunningEndpoint:
    about = next(_ask(path, {"do": "describe"}, _TIMEOUT_S))
    return RunningEndpoint(
        socket=path,
        model=about["model"],
        address=join_address(about["host"], about["port"]),
        version=about["version"],
        repository=about["repository"],
        digest=about["digest"],
        settings=about["settings"],
        promotion=about["promotion"],
    )


def _ask(path: Path, request: dict[str, Any], timeout_s: float | None) -> Iterator[dict[str, Any]]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(timeout_s)
        connection.connect(str(path))
        connection.sendall(json.dumps(request).encode() + b"\n")
        with connection.makefile("rb") as stream:
            for line in stream:
                yield json.loads(line)


def _port(address: str) -> str:
    return address.rpartition(":")[2]
