"""The process that serves /metrics and /healthz: `python -m serving.observability.exporter RUNTIME DESCRIPTOR`.

A process of its own, so that nothing that a scraper does can hold up the supervisor, which forks and must answer
faults in a moment; the standard library alone, so that it is up in a tenth of a second and small. It inherits the
listening socket from the supervisor: the port is known and taken before it starts, and stays open while one that died
is replaced.

Whom to ask is in the file `scrape.json` of the runtime directory, read at each scrape, as Tritons come and go:

    {"tritons": [{"name": "stable", "port": 1234}], "envoy": "/…/envoy.sock", "health": "/…/health.sock"}

All are asked at the same time. One that doesn't answer within two seconds costs its part of the page and shows in
`slipway_up`, never the rest.

/healthz is what the front door says of itself, for probes that can't come in by the door: with mutual TLS a kubelet
has no certificate to show.
"""

import ctypes
import http.client
import json
import os
import signal
import socket
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from serving.observability.exposition import CONTENT_TYPE, Page
from serving.unix_socket import UnixConnection
from slipway import __version__

SCRAPE = "scrape.json"
HEALTH_PATH = "/healthz"

_TIMEOUT_S = 2.0
_CLIENT_TIMEOUT_S = 10.0
_MOST_AT_A_TIME = 16
_LARGEST_PAGE = 16 << 20
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Source:
    """One page to ask for. `address` is a port of the loopback, or a Unix socket."""

    component: str
    address: int | Path
    path: str
    backend: str = ""

    @property
    def labels(self) -> dict[str, str]:
        """What tells its series from those of its like."""
        return {"backend": self.backend} if self.backend else {}

    def fetch(self) -> tuple[str | None, float]:
        """Its page, None if it doesn't answer, and the seconds that it took."""
        started = time.perf_counter()
        try:
            connection = _connection(self.address)
            try:
                connection.request("GET", self.path)
                response = connection.getresponse()
                text = response.read(_LARGEST_PAGE).decode("utf-8", errors="replace")
            finally:
                connection.close()
        except (OSError, http.client.HTTPException):
            return None, time.perf_counter() - started
        return text if response.status == HTTPStatus.OK else None, time.perf_counter() - started


def _connection(address: int | Path) -> http.client.HTTPConnection:
    if isinstance(address, Path):
        return UnixConnection(address, _TIMEOUT_S)
    return http.client.HTTPConnection("127.0.0.1", address, timeout=_TIMEOUT_S)


def sources(runtime: Path) -> list[Source]:
    """Whom `scrape.json` names; nobody while there is none."""
    try:
        told = json.loads((runtime / SCRAPE).read_text(encoding="utf-8"))
        found = [Source("triton", int(one["port"]), "/metrics", str(one["name"])) for one in told.get("tritons", [])]
        if told.get("envoy"):
            found.append(Source("envoy", Path(told["envoy"]), "/stats/prometheus"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []
    return found


def is_healthy(runtime: Path) -> bool:
    """Whether the front door says so; false while there is none."""
    try:
        told = json.loads((runtime / SCRAPE).read_text(encoding="utf-8"))
        connection = UnixConnection(Path(told["health"]), _TIMEOUT_S)
        try:
            connection.request("GET", HEALTH_PATH)
            return connection.getresponse().status == HTTPStatus.OK
        finally:
            connection.close()
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError):
        return False


def write_sources(runtime: Path, tritons: dict[str, int], envoy: Path, health: Path) -> None:
    """Say whom to ask: metrics port by name of the backend, Envoy's admin socket, and that of its health."""
    told = {
        "tritons": [{"name": name, "port": port} for name, port in tritons.items()],
        "envoy": str(envoy),
        "health": str(health),
    }
    draft = runtime / f"{SCRAPE}.new"
    draft.write_text(json.dumps(told), encoding="utf-8")
    draft.replace(runtime / SCRAPE)


def collect(asked: list[Source], pool: ThreadPoolExecutor) -> str:
    """The page made of what the sources answer."""
    page = Page()
    answers = list(pool.map(Source.fetch, asked))
    for source, (text, _) in zip(asked, answers, strict=True):
        if text is not None:
            page.add(text, source.labels)
    for source, (text, seconds) in zip(asked, answers, strict=True):
        labels = {"component": source.component, **source.labels}
        page.gauge("slipway_up", "Whether the part answered this scrape.", int(text is not None), **labels)
        page.gauge("slipway_scrape_seconds", "Time that the part took to answer this scrape.", seconds, **labels)
    about = "Families of metrics that were left out, because two parts gave them different types."
    page.gauge("slipway_metric_conflicts", about, len(page.conflicts))
    page.gauge("slipway_build_info", "Version of Slipway.", 1, version=__version__)
    return page.text()


class Exporter(ThreadingHTTPServer):
    """Serves the page of the endpoint at `runtime` on a socket that listens already."""

    daemon_threads = True

    def __init__(self, runtime: Path, listener: socket.socket) -> None:
        super().__init__(listener.getsockname()[:2], _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listener
        self.runtime = runtime
        self.scrapers = ThreadPoolExecutor(2 * _MOST_AT_A_TIME, thread_name_prefix="scrape")
        self._room = threading.BoundedSemaphore(_MOST_AT_A_TIME)

    def process_request(self, request: Any, client_address: Any) -> None:
        """In a thread, of which there are so many; a connection beyond is closed."""
        if self._room.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """What the thread does."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A scraper that has gone is not worth a word."""


class _Handler(BaseHTTPRequestHandler):
    server: Exporter
    server_version, sys_version = "slipway", ""
    timeout = _CLIENT_TIMEOUT_S

    def do_GET(self) -> None:
        """The page, the state of health (200 or 503), or 404."""
        path, runtime = self.path.partition("?")[0], self.server.runtime
        if path == "/metrics":
            self._answer(HTTPStatus.OK, CONTENT_TYPE, collect(sources(runtime), self.server.scrapers))
        elif path == HEALTH_PATH:
            healthy = is_healthy(runtime)
            status = HTTPStatus.OK if healthy else HTTPStatus.SERVICE_UNAVAILABLE
            self._answer(status, "text/plain", "healthy\n" if healthy else "unhealthy\n")
        else:
            self._answer(HTTPStatus.NOT_FOUND, "text/plain", f"there are /metrics and {HEALTH_PATH}\n")

    do_HEAD = do_GET  # noqa: N815  # the name is http.server's

    def _answer(self, status: HTTPStatus, content_type: str, text: str) -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: a scrape every few seconds says nothing."""


def main(arguments: list[str]) -> int:
    """Serve until killed, or until the parent is gone."""
    parent = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if os.getppid() != parent:
        return 1
    with Exporter(Path(arguments[0]), socket.socket(fileno=int(arguments[1]))) as server:
        server.serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
