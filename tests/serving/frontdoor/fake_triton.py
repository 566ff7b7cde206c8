"""An upstream that answers as Triton does, at once or when it is told to, and remembers what it was asked.

So a test of the front door takes milliseconds, and can see which headers came through.
"""

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from serving.frontdoor.door import Backend

HEALTH_TEXT = "are you well"


class FakeTriton:
    """Both ports of one Triton. Health checks aren't counted, and are answered as long as `healthy`."""

    def __init__(self, name: str = "stable") -> None:
        self.name = name
        self.healthy = True
        self.gate = threading.Event()
        """Requests wait for it."""
        self.gate.set()
        self.delay_s = 0.0
        self.failure = ""
        """What is wrong with it, as a 503; "" if nothing is."""
        self.requests: list[dict[str, str]] = []
        """The headers of each, with `:path`."""
        self.running = 0
        self.most_running = 0
        self._lock = threading.Lock()
        self._http = _Server(("127.0.0.1", 0), _handler(self))
        self._grpc = grpc.server(ThreadPoolExecutor(64))
        self._grpc_port = self._grpc.add_insecure_port("127.0.0.1:0")
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(_Service(self), self._grpc)

    def __enter__(self) -> Self:
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()
        self._grpc.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.gate.set()
        self._http.shutdown()
        self._http.server_close()
        self._grpc.stop(None)

    def backend(self, **changes: Any) -> Backend:
        """This one, for a front door."""
        return Backend(self.name, self._http.server_address[1], self._grpc_port, version="1", **changes)

    def asked(self, path: str, headers: dict[str, str]) -> None:
        """Remember a request, and wait at the gate."""
        with self._lock:
            self.requests.append({":path": path, **{name.lower(): value for name, value in headers.items()}})
            self.running += 1
            self.most_running = max(self.most_running, self.running)
        self.gate.wait(30)
        time.sleep(self.delay_s)
        with self._lock:
            self.running -= 1


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Envoy may be gone before the answer; nobody misses it."""


def _handler(triton: FakeTriton) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            if HEALTH_TEXT.encode() in body:
                self._answer(200 if triton.healthy else 500, {})
                return
            triton.asked(self.path, dict(self.headers))
            if triton.failure:
                self._answer(503, {"error": triton.failure})
                return
            self._answer(200, {"model_name": "tiny", "model_version": "1", "backend": triton.name, "outputs": []})

        def do_GET(self) -> None:
            triton.asked(self.path, dict(self.headers))
            self._answer(200, {"name": "tiny", "backend": triton.name})

        def log_message(self, *_: object) -> None:
            """Nothing."""

        def _answer(self, status: int, content: object) -> None:
            body = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    return Handler


class _Service(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
    def __init__(self, triton: FakeTriton) -> None:
        self._triton = triton

    def _asked(self, path: str, context: Any) -> None:
        self._triton.asked(path, dict(context.invocation_metadata()))

    def ModelInfer(self, request: Any, context: Any) -> Any:
        self._asked("ModelInfer", context)
        if self._triton.failure:
            context.abort(grpc.StatusCode.UNAVAILABLE, self._triton.failure)
        return service_pb2.ModelInferResponse(model_name=self._triton.name, model_version="1", id=request.id)

    def ModelMetadata(self, request: Any, context: Any) -> Any:
        self._asked("ModelMetadata", context)
        return service_pb2.ModelMetadataResponse(name=self._triton.name)

    def ModelConfig(self, request: Any, context: Any) -> Any:
        self._asked("ModelConfig", context)
        return service_pb2.ModelConfigResponse()

    def ServerReady(self, request: Any, context: Any) -> Any:
        self._asked("ServerReady", context)
        return service_pb2.ServerReadyResponse(ready=True)
