"""An endpoint with real sockets and made-up answers: KServe v2 over gRPC and HTTP on one port, as Envoy offers it.

The text decides what happens, so a test says what it wants by what it sends: `!wrong`, `!error`, `!hang`, `!die`,
`!after N` (answered N ms later), `!stall N` (nobody, on either protocol, is answered for N seconds; then everybody at
once), and `!version 2` (answered by version 2 of the model, which calls it `LABELS[0]`). Any other text is labelled
`label_of(text)`. It runs in a process of its own: `with fake_endpoint() as address`. With an API key it answers nobody
else, with a certificate it speaks TLS.
"""

import argparse
import asyncio
import contextlib
import json
import os
import re
import ssl
import struct
import subprocess
import sys
import zlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

LABELS = ["negative", "neutral", "positive"]


def label_of(text: str) -> str:
    """The answer that the endpoint gives to an ordinary text."""
    return LABELS[zlib.crc32(text.encode()) % 3]


@contextlib.contextmanager
def fake_endpoint(
    model: str = "tiny",
    delay_ms: float = 1.0,
    workers: int = 1000,
    api_key: str = "",
    certificate: Path | None = None,
    log: Path | None = None,
) -> Iterator[str]:
    """Run an endpoint for `model`; yields `host:port`. Each request takes one of `workers` for `delay_ms`.

    `certificate` is a PEM file with the key in it. Each text that comes in is a line of JSON in `log`.
    """
    command = [sys.executable, "-m", "tests.loadtests.fake_endpoint", "--model", model]
    command += ["--delay-ms", str(delay_ms), "--workers", str(workers), "--api-key", api_key]
    command += ["--certificate", str(certificate or ""), "--log", str(log or os.devnull)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.kill()


class _Model:
    def __init__(self, name: str, delay_ms: float, workers: int, api_key: str, log: str) -> None:
        self.name = name
        self._log = Path(log).open("a", buffering=1, encoding="utf-8")  # noqa: SIM115  (for as long as the process)
        self.api_key = api_key
        self._delay_s = delay_ms / 1000
        self._workers = asyncio.Semaphore(workers)
        self._open = asyncio.Event()
        self._open.set()

    async def answers(self, texts: list[str]) -> tuple[list[str], str]:
        """Labels, and the version that gives them: one request is answered by one version."""
        version = "2" if texts[0].startswith("!version 2") else "1"
        return [await self.answer(text) for text in texts], version

    async def answer(self, text: str) -> str:
        self._log.write(json.dumps(text) + "\n")
        if text.startswith("!after"):
            await asyncio.sleep(float(text.split()[1]) / 1000)
        if text.startswith("!hang"):
            await asyncio.sleep(3600)
        if text.startswith("!die"):
            os._exit(1)
        if text.startswith("!error"):
            raise ValueError("made to fail")
        if text.startswith("!stall") and self._open.is_set():
            self._open.clear()
            asyncio.get_running_loop().call_later(float(text.split()[1]), self._open.set)
        await self._open.wait()
        async with self._workers:
            await asyncio.sleep(self._delay_s)
        if text.startswith("!version 2"):
            return LABELS[0]
        right = label_of(text)
        return LABELS[(LABELS.index(right) + 1) % 3] if text.startswith("!wrong") else right


async def _serve_grpc(model: _Model) -> Any:
    import grpc
    from tritonclient.grpc import service_pb2, service_pb2_grpc

    class Service(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
        async def ServerLive(self, request: Any, context: Any) -> Any:  # noqa: N802
            return service_pb2.ServerLiveResponse(live=True)

        async def ModelInfer(self, request: Any, context: Any) -> Any:  # noqa: N802
            if request.model_name != model.name:
                await context.abort(
                    grpc.StatusCode.NOT_FOUND, f"Request for unknown model: '{request.model_name}' is not found"
                )
            if model.api_key and ("x-api-key", model.api_key) not in context.invocation_metadata():
                await context.abort(grpc.StatusCode.UNAUTHENTICATED, "no key")
            raw, texts = request.raw_input_contents[0], []
            while raw:
                (length,) = struct.unpack("<I", raw[:4])
                texts.append(raw[4 : 4 + length].decode())
                raw = raw[4 + length :]
            try:
                labels, version = await model.answers(texts)
            except ValueError as error:
                await context.abort(grpc.StatusCode.INTERNAL, str(error))
            response = service_pb2.ModelInferResponse(model_name=model.name, model_version=version)
            for name, datatype in (("label", "BYTES"), ("score", "FP32")):
                response.outputs.add(name=name, datatype=datatype, shape=[len(texts), 1])
            raw_labels = b"".join(struct.pack("<I", len(label)) + label.encode() for label in labels)
            response.raw_output_contents.extend([raw_labels, struct.pack("<f", 0.9) * len(texts)])
            return response

    server = grpc.aio.server(options=[("grpc.max_receive_message_length", 2**24)])
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(Service(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    return server, port


async def _requests(reader: asyncio.StreamReader, first: bytes) -> AsyncIterator[tuple[bytes, bytes]]:
    """`(head, body)` of each request on a keep-alive HTTP/1.1 connection."""
    while True:
        with contextlib.suppress(asyncio.IncompleteReadError):
            head = first + await reader.readuntil(b"\r\n\r\n")
            first = b""
            length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
            yield head, await reader.readexactly(int(length[1]) if length else 0)
            continue
        return


async def _http(model: _Model, head: bytes, body: bytes) -> tuple[int, bytes]:
    path = head.split(b" ", 2)[1].decode()
    if model.api_key and f"\r\nx-api-key: {model.api_key}\r\n".encode() not in head:
        return 401, b"no key"
    if path not in (f"/v2/models/{model.name}/infer", f"/v2/models/{model.name}/generate"):
        return 404, json.dumps({"error": f"Request for unknown model: '{path}' is not found"}).encode()
    flat = path.endswith("/generate")
    asked = json.loads(body)
    texts = [asked["text"]] if flat else asked["inputs"][0]["data"]
    try:
        labels, version = await model.answers(texts)
    except ValueError as error:
        return 500, json.dumps({"error": str(error)}).encode()
    answer: dict[str, Any] = {"model_name": model.name, "model_version": version}
    if flat:
        return 200, json.dumps(answer | {"label": labels[0], "score": 0.9}).encode()
    outputs = [
        {"name": "label", "datatype": "BYTES", "shape": [len(texts), 1], "data": labels},
        {"name": "score", "datatype": "FP32", "shape": [len(texts), 1], "data": [0.9] * len(texts)},
    ]
    return 200, json.dumps(answer | {"outputs": outputs}).encode()


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


async def _main(model: _Model, certificate: str) -> None:
    grpc_server, grpc_port = await _serve_grpc(model)

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            first = await reader.readexactly(4)
            if first == b"PRI ":
                upstream_reader, upstream = await asyncio.open_connection("127.0.0.1", grpc_port)
                upstream.write(first)
                await asyncio.gather(_pipe(reader, upstream), _pipe(upstream_reader, writer))
                return
            async for head, body in _requests(reader, first):
                status, answer = await _http(model, head, body)
                lines = [f"HTTP/1.1 {status} X", "Content-Type: application/json", f"Content-Length: {len(answer)}"]
                writer.write("\r\n".join([*lines, "", ""]).encode() + answer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    secured = None
    if certificate:
        secured = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        secured.load_cert_chain(certificate)
        secured.set_alpn_protocols(["h2", "http/1.1"])
    server = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=secured)
    print(f"127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await grpc_server.wait_for_termination()


async def _serve(arguments: argparse.Namespace) -> None:
    model = _Model(arguments.model, arguments.delay_ms, arguments.workers, arguments.api_key, arguments.log)
    await _main(model, arguments.certificate)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--delay-ms", type=float, default=1.0)
    parser.add_argument("--workers", type=int, default=1000)
    parser.add_argument("--api-key", default="")
    parser.add_argument("--certificate", default="")
    parser.add_argument("--log", default=os.devnull)
    arguments = parser.parse_args()
    asyncio.run(_serve(arguments))
