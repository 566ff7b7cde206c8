"""An endpoint that does what a test tells it, request by request, over real sockets: gRPC or HTTP, plain or TLS.

    with ScriptedEndpoint("grpc", [Refusal(503), Refusal(429, retry_after="0.1")]) as endpoint:
        …  # the third inference and all after it are answered; label: the text, reversed

Metadata requests are answered at once and not counted. `received` holds what came, in order.
"""

import contextlib
import json
import socket
import ssl
import struct
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

OUTPUTS: dict[str, list[int]] = {"label": [-1, -1], "score": [-1, -1], "scores": [-1, 3], "truncated": [-1, 1]}
VERSION = "7"
_GRPC_STATUS = {
    400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 404: "NOT_FOUND",
    413: "RESOURCE_EXHAUSTED", 429: "RESOURCE_EXHAUSTED", 500: "INTERNAL", 503: "UNAVAILABLE", 504: "DEADLINE_EXCEEDED",
}  # fmt: skip


@dataclass(frozen=True)
class Refusal:
    """Answer with this HTTP status, or the gRPC one that means the same."""

    status: int
    retry_after: str | None = None
    request_id: str | None = None
    reason: str = "scripted"


@dataclass(frozen=True)
class Stall:
    """Answer after so many seconds, or when the endpoint ends."""

    seconds: float


@dataclass(frozen=True)
class Content:
    """Answer 200 with this, over HTTP."""

    body: bytes


Step = Refusal | Stall | Content | Literal["drop", "answer", "nonsense"]


@dataclass(frozen=True)
class Received:
    """One inference request."""

    at: float
    headers: dict[str, str]
    texts: list[str]
    outputs: list[str]
    top_k: int | None


@dataclass(frozen=True)
class Certificates:
    """PEM files: an authority, and a certificate of 127.0.0.1 and of a caller that it signed."""

    ca: Path
    certificate: Path
    key: Path


class ScriptedEndpoint:
    """Runs in threads of the test's process until the block is left."""

    def __init__(
        self,
        protocol: str,
        script: Sequence[Step] = (),
        *,
        outputs: dict[str, list[int]] | None = None,
        tls: Certificates | None = None,
    ) -> None:
        self.protocol = protocol
        self.received: list[Received] = []
        self.outputs = OUTPUTS if outputs is None else outputs
        self.most_at_once = 0
        self._script = iter(script)
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._now = 0
        self._tls = tls
        self._exit = contextlib.ExitStack()
        self.address = ""

    def __enter__(self) -> Self:
        self._listen(0)
        return self

    def hang_up(self) -> None:
        """Close every connection, and listen at the same address again."""
        self._exit.close()
        self._listen(int(self.address.rpartition(":")[2]))

    def _listen(self, port: int) -> None:
        serve = _grpc if self.protocol == "grpc" else _http
        self.address = f"127.0.0.1:{self._exit.enter_context(serve(self, self._tls, port))}"

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._exit.close()

    @contextlib.contextmanager
    def step(self, received: Received) -> Iterator[Step]:
        """What to do with a request; a stall is over when it is yielded."""
        with self._lock:
            self.received.append(received)
            step = next(self._script, "answer")
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
        try:
            if isinstance(step, Stall):
                self._over.wait(step.seconds)
            yield step
        finally:
            with self._lock:
                self._now -= 1


def label_of(text: str) -> str:
    return text[::-1]


def answer_of(received: Received, outputs: dict[str, list[int]]) -> dict[str, tuple[str, list[int], list[Any]]]:
    """Type, shape and values of each output."""
    rows, width = len(received.texts), (received.top_k or 1) if "scores" in outputs else 1
    labels = [label_of(text) + "'" * rank for text in received.texts for rank in range(width)]
    scores = [0.5 / (rank + 1) for _ in received.texts for rank in range(width)]
    everything = {
        "label": ("BYTES", [rows, width], labels),
        "score": ("FP32", [rows, width], scores),
        "truncated": ("BOOL", [rows, 1], [len(text) > 20 for text in received.texts]),
    }
    assert set(received.outputs) <= set(outputs) & set(everything)
    return {name: everything[name] for name in received.outputs}


@contextlib.contextmanager
def _grpc(endpoint: ScriptedEndpoint, tls: Certificates | None, port: int) -> Iterator[int]:
    import grpc
    from tritonclient.grpc import service_pb2, service_pb2_grpc

    class Service(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
        def ModelMetadata(self, request: Any, context: Any) -> Any:  # noqa: N802
            response = service_pb2.ModelMetadataResponse(name=request.name)
            for name, shape in endpoint.outputs.items():
                response.outputs.add(name=name, datatype="", shape=shape)
            return response

        def ModelInfer(self, request: Any, context: Any) -> Any:  # noqa: N802
            received = Received(
                time.monotonic(),
                dict(context.invocation_metadata()),
                _strings(request.raw_input_contents[0]),
                [output.name for output in request.outputs],
                request.parameters["top_k"].int64_param if "top_k" in request.parameters else None,
            )
            with endpoint.step(received) as step:
                response = service_pb2.ModelInferResponse(model_name=request.model_name, model_version=VERSION)
                if isinstance(step, Refusal):
                    pushback = None if step.retry_after is None else str(int(1000 * float(step.retry_after)))
                    more = [("grpc-retry-pushback-ms", pushback), ("x-request-id", step.request_id)]
                    context.set_trailing_metadata(tuple((name, value) for name, value in more if value is not None))
                    context.abort(getattr(grpc.StatusCode, _GRPC_STATUS[step.status]), step.reason)
                if step == "drop":
                    context.abort(grpc.StatusCode.UNAVAILABLE, "dropped")
                if step == "nonsense":
                    return response
                for name, (kind, shape, values) in answer_of(received, endpoint.outputs).items():
                    response.outputs.add(name=name, datatype=kind, shape=shape)
                    response.raw_output_contents.append(_raw(kind, values))
                return response

    with ThreadPoolExecutor(64) as pool:
        server = grpc.server(pool)
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(Service(), server)
        if tls is None:
            port = server.add_insecure_port(f"127.0.0.1:{port}")
        else:
            pair = (tls.key.read_bytes(), tls.certificate.read_bytes())
            credentials = grpc.ssl_server_credentials([pair], tls.ca.read_bytes(), require_client_auth=True)
            port = server.add_secure_port(f"127.0.0.1:{port}", credentials)
        server.start()
        try:
            yield port
        finally:
            server.stop(0).wait()


@contextlib.contextmanager
def _http(endpoint: ScriptedEndpoint, tls: Certificates | None, port: int) -> Iterator[int]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1

        def do_GET(self) -> None:
            outputs = [{"name": name, "shape": shape} for name, shape in endpoint.outputs.items()]
            self._send(200, {"name": "tiny", "outputs": outputs})

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            size = int(self.headers["inference-header-content-length"])
            head = json.loads(body[:size])
            received = Received(
                time.monotonic(),
                {name.lower(): value for name, value in self.headers.items()},
                _strings(body[size:]),
                [output["name"] for output in head["outputs"]],
                head.get("parameters", {}).get("top_k"),
            )
            with endpoint.step(received) as step, contextlib.suppress(OSError):
                if isinstance(step, Refusal):
                    more = {"retry-after": step.retry_after, "x-request-id": step.request_id}
                    self._send(step.status, {"error": step.reason}, more)
                elif step == "drop":
                    self.close_connection = True
                elif step == "nonsense":
                    self._send(200, "nonsense")
                elif isinstance(step, Content):
                    self._send_bytes(200, step.body)
                else:
                    outputs = [
                        {"name": name, "datatype": kind, "shape": shape, "data": values}
                        for name, (kind, shape, values) in answer_of(received, endpoint.outputs).items()
                    ]
                    self._send(200, {"model_name": "tiny", "model_version": VERSION, "outputs": outputs})

        def log_message(self, format: str, *args: object) -> None:
            pass

        def _send(self, status: int, answer: object, more: dict[str, str | None] | None = None) -> None:
            self._send_bytes(status, json.dumps(answer).encode(), more)

        def _send_bytes(self, status: int, body: bytes, more: dict[str, str | None] | None = None) -> None:
            self.send_response(status)
            for name, value in {"content-length": str(len(body)), **(more or {})}.items():
                if value is not None:
                    self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)
            self.wfile.flush()

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 128
        connections: ClassVar[list[Any]] = []

        def process_request(self, request: Any, client_address: Any) -> None:
            self.connections.append(request)
            super().process_request(request, client_address)

        def handle_error(self, request: Any, client_address: Any) -> None:
            pass

    server = Server(("127.0.0.1", port), Handler)
    if tls is not None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=tls.ca)
        context.load_cert_chain(tls.certificate, tls.key)
        context.verify_mode = ssl.CERT_REQUIRED
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
        for connection in server.connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


def _strings(raw: bytes) -> list[str]:
    found = []
    while raw:
        (length,) = struct.unpack("<I", raw[:4])
        found.append(raw[4 : 4 + length].decode())
        raw = raw[4 + length :]
    return found


def _raw(kind: str, values: list[Any]) -> bytes:
    if kind == "BYTES":
        return b"".join(struct.pack("<I", len(value.encode())) + value.encode() for value in values)
    return struct.pack(f"<{len(values)}{'f' if kind == 'FP32' else '?'}", *values)
