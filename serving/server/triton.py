"""Running the Triton that comes in a wheel: its files, its command line, its administration.

`nvidia-pytriton` carries the `tritonserver` binary and the Python backend; its Python API is not used,
because an ordinary model repository is what runs in the production image, too.

What this version needs, each found the hard way:

- The backend's folder holds copies, not links, of the library, its utilities and the stub for the running Python.
- A backend written in Python is a folder of its name with a `model.py`; `onnxruntime` and `openvino` are such here.
- The stub finds its packages through the first `python3` on PATH; PYTHONPATH is ignored.
- Importing `model.py` leaves a `__pycache__` beside it. The repository is an artifact and must stay as it is, so Triton
  runs from a staged one: its configuration and code copied, its big files linked.
- A repository says version 1 whatever it is a version of. The staged one is numbered in the order in which an endpoint
  served them, so that `model_version` in an answer says which of them answered.
- Loading a model again is a no-op unless a file of it is newer; touching one makes Triton load a second set of
  instances and swap it in, so that the living ones answer meanwhile.
- The JSON parser recurses; a larger stack moves the depth at which it ends the process, `request_guard.lua` forbids it.
- Whoever can reach Triton's port can unload models. It listens on loopback only, and its administration wants a secret
  header. The secret is on the command line: it keeps out stray requests, not other users of the machine.
"""

import contextlib
import ctypes.util
import http.client
import json
import os
import secrets
import shutil
import socket
import sys
import sysconfig
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from serving.protocol import FORWARDED_HEADERS
from serving.server.runtime import Runtime
from slipway.errors import ServingError
from slipway.processes import MARKER

LOOPBACK = "127.0.0.1"

_ADMIN_HEADER = "slipway-admin"
_FORWARDED = f"(?i)^({'|'.join(FORWARDED_HEADERS)})$"
_ADMIN_APIS = "model-repository,shared-memory,logging,trace"
STACK_BYTES = 64 << 20
"""Of Triton's main thread."""
VERSION_MARKER = "SLIPWAY_ENDPOINT_VERSION"
"""In the environment of a Triton and of its stubs: which of the endpoint's Tritons it is."""
_BACKEND = "python"
_ENCODER_BACKENDS = ("onnxruntime", "openvino")
_ENCODER_PY = '''"""Triton loads this file as the backend of its folder's name; the backend is the tested package."""

from serving.model.encoder import TritonPythonModel

__all__ = ["TritonPythonModel"]
'''
_TOUCHED = "loaded"
"""A file beside a staged model that is made newer when the model is to be loaded again."""
_REPOSITORY_VERSION = "1"


@dataclass(frozen=True)
class TritonServer:
    """One server to be started for `model`, on ports that were free a moment ago."""

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
    def plan(cls, runtime: Runtime, model: str, version: int) -> "TritonServer":
        """A server of what was staged as `version`, on three free ports of the loopback."""
        http_port, grpc_port, metrics_port = free_ports(3)
        key = secrets.token_hex(16)
        return cls(runtime.path, f"{runtime.id}-{version}", version, model, http_port, grpc_port, metrics_port, key)

    def command(self, shared_memory_prefix: str) -> list[str]:
        """The command line; every model is loaded and unloaded on request, so that a broken one can be mended."""
        guard = f"{_ADMIN_APIS}:{_ADMIN_HEADER}={self.admin_key}"
        options = {
            "id": self.id,
            "model-repository": staged(self.runtime, self.version),
            "backend-directory": self.runtime / "backends",
            "model-config-name": "cpu",
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
            "allow-gpu-metrics": "false",
            "pinned-memory-pool-byte-size": 0,
        }
        return [
            str(_wheel() / "bin" / "tritonserver"),
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


class ModelNotLoadedError(ServingError):
    """Triton tried to load the model and failed; it may work the next time."""


class PortTakenError(ServingError):
    """A port that was free when it was chosen is not any more; choose others."""


def stage_backend(runtime: Path) -> None:
    """Put Triton's backends for this Python into the runtime directory."""
    wheel = _wheel()
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = wheel / "python_backend_stubs" / version / "triton_python_backend_stub"
    if not stub.is_file():
        raise ServingError(f"this Triton has no Python backend for Python {version}; use 3.11 or 3.12.")
    backend = runtime / "backends" / _BACKEND
    backend.mkdir(parents=True)
    library = wheel / "backends" / _BACKEND
    for file in (library / "libtriton_python.so", library / "triton_python_backend_utils.py", stub):
        shutil.copy(file, backend / file.name)
    for name in _ENCODER_BACKENDS:
        (runtime / "backends" / name).mkdir()
        (runtime / "backends" / name / "model.py").write_text(_ENCODER_PY, encoding="utf-8")


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
    """What Triton and its stubs run with; `version` is what they serve, 0 for the other processes of an endpoint."""
    libraries = [str(_wheel().parent.parent / "nvidia_pytriton.libs"), _python_library_directory()]
    return {
        **os.environ,
        MARKER: endpoint_id,
        VERSION_MARKER: str(version),
        "PATH": os.pathsep.join([_python_directory(), os.environ.get("PATH", os.defpath)]),
        "LD_LIBRARY_PATH": os.pathsep.join([*filter(None, libraries), os.environ.get("LD_LIBRARY_PATH", "")]),
        # Instances are the parallelism; a tokenizer with a thread for each core would only fight them.
        "TOKENIZERS_PARALLELISM": "false",
    }


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


def _wheel() -> Path:
    import importlib.util

    found = importlib.util.find_spec("pytriton")
    if found is None or not found.submodule_search_locations:
        raise ModuleNotFoundError("No module named 'pytriton'", name="pytriton")
    return Path(found.submodule_search_locations[0]) / "tritonserver"


def _python_directory() -> str:
    directory = Path(sys.executable).parent
    if not (directory / "python3").exists():
        raise ServingError(f"{directory} has no python3, which Triton's Python backend looks for.")
    return str(directory)


def _python_library_directory() -> str | None:
    """Where this Python's shared library is; None if the system's linker knows."""
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    directory = sysconfig.get_config_var("LIBDIR")
    if directory and (Path(directory) / f"lib{name}.so.1.0").exists():
        return str(directory)
    if ctypes.util.find_library(name):
        return None
    raise ServingError(
        f"lib{name}.so.1.0 is not installed, which Triton's Python backend needs; "
        f"on Debian or Ubuntu: apt install lib{name}, or use a Python that was built with --enable-shared."
    )


def _copy_or_link(source: str, target: str) -> Any:
    if Path(source).name in ("model.py", "config.pbtxt"):
        return shutil.copy(source, target)
    try:
        os.link(source, target)
    except OSError:
        return shutil.copy(source, target)
    return target
