"""Running Triton: its files, its command line, its administration. Which one it is: `serving.server.installation`.

What it needs, each found the hard way:

- Importing `model.py` leaves a `__pycache__` beside it. The repository is an artifact and must stay as it is, so Triton
  runs from a staged one: its configuration and code copied, its big files linked.
- A repository says version 1 whatever it is a version of. The staged one is numbered in the order in which an endpoint
  served them, so that `model_version` in an answer says which of them answered.
- Loading a model again is a no-op unless a file of it is newer; touching one makes Triton load a second set of
  instances and swap it in, so that the living ones answer meanwhile.
- The JSON parser recurses; a larger stack moves the depth at which it ends the process, `request_guard.lua` forbids it.
- Whoever can reach Triton's port can unload models. It listens on loopback only, and its administration wants a secret
  header. The secret is on the command line: it keeps out stray requests, not other users of the machine.

All options are of the wheel's 2.51, and are there in the parser of NVIDIA's 25.x, too.
"""

import contextlib
import http.client
import json
import os
import secrets
import shutil
import socket
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from serving.protocol import FORWARDED_HEADERS
from serving.server.installation import Installation
from serving.server.runtime import Runtime
from slipway.errors import ServingError
from slipway.processes import MARKER

if TYPE_CHECKING:
    from serving.repository.plan import TargetName

LOOPBACK = "127.0.0.1"

_ADMIN_HEADER = "slipway-admin"
_FORWARDED = f"(?i)^({'|'.join(FORWARDED_HEADERS)})$"
_ADMIN_APIS = "model-repository,shared-memory,logging,trace"
STACK_BYTES = 64 << 20
"""Of Triton's main thread."""
VERSION_MARKER = "SLIPWAY_ENDPOINT_VERSION"
"""In the environment of a Triton and of its stubs: which of the endpoint's Tritons it is."""
_BACKEND = "python"
_TOUCHED = "loaded"
"""A file beside a staged model that is made newer when the model is to be loaded again."""
_REPOSITORY_VERSION = "1"
_OPTIONS: "dict[TargetName, dict[str, Any]]" = {
    # Without a GPU, looking for one costs time at the start, and pinned memory is of no use.
    "cpu": {"allow-gpu-metrics": "false", "pinned-memory-pool-byte-size": 0},
    "gpu": {},
}


@dataclass(frozen=True)
class TritonServer:
    """One server to be started for `model`, on ports that were free a moment ago."""

    installation: Installation
    target: "TargetName"
    """Whose configurations it loads."""
    runtime: Path
    id: str
    """What it says of itself; a port that was taken by another server is recognized by it."""
    version: int
    model: str
    http_port: int
    grpc_port: int
    metrics_port: int
    admin_key: str = field(repr=False)

    @classmethod
    def plan(
        cls, installation: Installation, target: "TargetName", runtime: Runtime, model: str, version: int
    ) -> "TritonServer":
        """A server of what was staged as `version`, on three free ports of the loopback."""
        http_port, grpc_port, metrics_port = free_ports(3)
        return cls(
            installation,
            target,
            runtime.path,
            f"{runtime.id}-{version}",
            version,
            model,
            http_port,
            grpc_port,
            metrics_port,
            secrets.token_hex(16),
        )

    def command(self, shared_memory_prefix: str) -> list[str]:
        """The command line; every model is loaded and unloaded on request, so that a broken one can be mended."""
        guard = f"{_ADMIN_APIS}:{_ADMIN_HEADER}={self.admin_key}"
        options = {
            "id": self.id,
            "model-repository": staged(self.runtime, self.version),
            "backend-directory": self.installation.backends(self.runtime),
            "model-config-name": self.target,
            "model-control-mode": "explicit",
            "load-model": self.model,
            "backend-config": f"{_BACKEND},shm-region-prefix-name={shared_memory_prefix}",
            "http-address": LOOPBACK,
            "http-port": self.http_port,
            "http-restricted-api": guard,
            "grpc-address": LOOPBACK,
            "grpc-port": self.grpc_port,
            "grpc-restricted-protocol": guard,
            "http-header-forward-pattern": _FORWARDED,
            "grpc-header-forward-pattern": _FORWARDED,
            "metrics-address": LOOPBACK,
            "metrics-port": self.metrics_port,
            **_OPTIONS[self.target],
        }
        return [
            str(self.installation.program),
            "--disable-auto-complete-config",
            *(f"--{name}={value}" for name, value in options.items()),
        ]

    def answering(self) -> str | None:
        """Version of the server on the HTTP port if it is this one and has the model ready; None while it starts.

        Raises `PortTakenError` if somebody else's server answers there.
        """
        try:
            status, body = self._call("GET", "/v2")
            if status != http.client.OK:
                return None
            about = json.loads(body)
            ready, _ = self._call("GET", f"/v2/models/{self.model}/ready")
        except (OSError, http.client.HTTPException, ValueError):
            return None
        if about.get("name") != self.id:
            raise PortTakenError(f"port {self.http_port} was taken by another server")
        return str(about["version"]) if ready == http.client.OK else None

    def instances(self) -> dict[str, "Instances"]:
        """Of each model, as Triton counts them, which knows how many GPUs there are.

        Raises `OSError`, `http.client.HTTPException` or `ValueError` if it doesn't say.
        """
        found = {}
        for model in sorted(path.name for path in staged(self.runtime, self.version).iterdir()):
            status, body = self._call("GET", f"/v2/models/{model}/config")
            if status != http.client.OK:
                raise ValueError(f"status {status} for the configuration of {model}")
            config = json.loads(body)
            groups = config.get("instance_group", ())
            count = sum(int(group["count"]) * max(1, len(group.get("gpus", ()))) for group in groups)
            found[model] = Instances(config.get("backend", ""), count)
        return found

    def reload(self, timeout_s: float) -> None:
        """Load the model again beside the old one and swap.

        Raises `ModelNotLoadedError` if Triton couldn't, `ServingError` if it doesn't say within the time: a model
        process that dies at the wrong moment of its start makes Triton wait for ever.
        """
        for version in staged(self.runtime, self.version).glob(f"*/{self.version}"):
            (version / _TOUCHED).touch()
        path = f"/v2/repository/models/{self.model}/load"
        headers = {_ADMIN_HEADER: self.admin_key, "content-type": "application/json"}
        try:
            status, body = self._call("POST", path, headers, timeout=timeout_s)
        except (OSError, http.client.HTTPException) as error:
            raise ServingError(f"Triton did not load the model again within {timeout_s:.0f} s: {error}") from error
        if status != http.client.OK:
            raise ModelNotLoadedError(f"Triton could not load the model again: {body.decode(errors='replace').strip()}")

    def unload(self, timeout_s: float) -> None:
        """Let the model's processes end in good order, as far as the time allows; they write what they still hold."""
        path = f"/v2/repository/models/{self.model}/unload"
        headers = {_ADMIN_HEADER: self.admin_key, "content-type": "application/json"}
        deadline = time.monotonic() + timeout_s
        with contextlib.suppress(OSError, http.client.HTTPException):
            self._call("POST", path, headers, timeout=timeout_s)
            # Triton answers before the processes have ended.
            while time.monotonic() < deadline and self._is_loaded():
                time.sleep(0.05)

    def _is_loaded(self) -> bool:
        headers = {_ADMIN_HEADER: self.admin_key, "content-type": "application/json"}
        _, body = self._call("POST", "/v2/repository/index", headers)
        return any(one.get("state") != "UNAVAILABLE" for one in json.loads(body))

    def _call(
        self, method: str, path: str, headers: dict[str, str] | None = None, *, timeout: float = 2.0
    ) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(LOOPBACK, self.http_port, timeout=timeout)
        try:
            connection.request(method, path, body=b"{}" if method == "POST" else None, headers=headers or {})
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()


@dataclass(frozen=True)
class Instances:
    """How many run a model, on all its devices together, and by which backend; none of an ensemble itself."""

    backend: str
    count: int


class ModelNotLoadedError(ServingError):
    """Triton tried to load the model and failed; it may work the next time."""


class PortTakenError(ServingError):
    """A port that was free when it was chosen is not any more; choose others."""


def stage_models(runtime: Path, models: Path, version: int) -> None:
    """Put a servable copy of the models in `models` into the runtime directory, as version `version` of them."""
    target = staged(runtime, version)
    shutil.copytree(models, target, copy_function=_copy_or_link)
    if str(version) != _REPOSITORY_VERSION:
        for directory in target.glob(f"*/{_REPOSITORY_VERSION}"):
            directory.rename(directory.with_name(str(version)))


def staged(runtime: Path, version: int) -> Path:
    """Where the models of `version` are staged."""
    return runtime / "models" / str(version)


def environment(endpoint_id: str, version: int = 0) -> dict[str, str]:
    """What an endpoint's processes run with; `version` is what a Triton and its stubs serve, 0 for the others."""
    return {**os.environ, MARKER: endpoint_id, VERSION_MARKER: str(version)}


def free_ports(count: int) -> list[int]:
    """Ports of the loopback that are free now, all different."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind((LOOPBACK, 0))
        return [int(one.getsockname()[1]) for one in sockets]
    finally:
        for one in sockets:
            one.close()


def _copy_or_link(source: str, target: str) -> Any:
    if Path(source).name in ("model.py", "config.pbtxt"):
        return shutil.copy(source, target)
    try:
        os.link(source, target)
    except OSError:
        return shutil.copy(source, target)
    return target
