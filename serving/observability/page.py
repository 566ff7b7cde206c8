"""The supervisor's side of /metrics: the socket, and the process that answers on it (`exporter`)."""

import contextlib
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

from slipway.errors import ServingError

_LEAST_LIFE_S = 1.0


class MetricsPage:
    """Listens at once; `keep` starts the process, and another when that one has died."""

    def __init__(self, runtime: Path, host: str, port: int, environment: dict[str, str]) -> None:
        self._runtime = runtime
        self._environment = environment
        self._listener = _listen(host, port)
        self._process: subprocess.Popen[bytes] | None = None
        self._started = 0.0

    @property
    def port(self) -> int:
        """Where it is served."""
        return int(self._listener.getsockname()[1])

    def keep(self) -> None:
        """See that it is served; does not wait. At most one start a second, whatever it dies of."""
        if self._process is not None and self._process.poll() is None:
            return
        now = time.monotonic()
        if self._process is not None and now - self._started < _LEAST_LIFE_S:
            return
        self._started = now
        descriptor = self._listener.fileno()
        with (self._runtime / "exporter.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "serving.observability.exporter", str(self._runtime), str(descriptor)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**self._environment, "PYTHONPATH": str(Path(__file__).parents[2])},
                pass_fds=(descriptor,),
            )

    def close(self) -> None:
        """End it."""
        self._listener.close()
        if self._process is not None:
            with contextlib.suppress(OSError):
                self._process.kill()
            self._process.wait()
            self._process = None


def _listen(host: str, port: int) -> socket.socket:
    """A socket that listens; raises `ServingError` if it can't."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind)
    except OSError as error:
        raise ServingError(
            f"observe.metrics_host {host!r} is not an address of this machine: {error.strerror}."
        ) from error
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
        listener.listen(16)
    except OSError as error:
        listener.close()
        raise ServingError(
            f"metrics can't be served on {host}:{port}: {os.strerror(error.errno or 0)}; set observe.metrics_port to "
            "another, or to 0 for a free one."
        ) from error
    return listener
