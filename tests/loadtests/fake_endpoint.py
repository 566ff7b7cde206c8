"""An endpoint with real sockets and made-up answers: KServe v2 over gRPC and HTTP on one port, as Envoy offers it.

The text decides what happens, so a test says what it wants by what it sends: `!wrong`, `!error`, `!hang`, `!die`, and
`!stall N` (nobody, on either protocol, is answered for N seconds; then everybody at once). Any other text is labelled
`label_of(text)`. It runs in a process of its own: `with fake_endpoint() as address`.
"""

import argparse
import asyncio
import contextlib
import json
import os
import re
import struct
import subprocess
import sys
import zlib
from collections.abc import AsyncIterator, Iterator
from typing import Any

LABELS = ["negative", "neutral", "positive"]


def label_of(text: str) -> str:
    """The answer that the endpoint gives to an ordinary text."""
    return LABELS[zlib.crc32(text.encode()) % 3]


@contextlib.contextmanager
def fake_endpoint(model: str = "tiny", delay_ms: float = 1.0, workers: int = 1000) -> Iterator[str]:
    """Run an endpoint for `model`; yields `host:port`. Each request takes one of `workers` for `delay_ms`."""
    command = [sys.executable, "-m", "tests.loadtests.fake_endpoint", "--model", model]
    command += ["--delay-ms", str(delay_ms), "--workers", str(workers)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.kill()


class _Model:
    def __init__(self, name: str, delay_ms: float, workers: int) -> None:
        self.name = name
        self._delay_s = delay_ms / 1000
        self._workers = asyncio.Semaphore(workers)
        self._open = asyncio.Event()
        self._open.set()

    async def answer(self, text: str) -> str:
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
            raw = request.raw_input_contents[0]
            (length,) = struct.unpack("<I", raw[:4])
            try:
                label = (await model.answer(raw[4 : 4 + length].decode())).encode()
            except ValueError as error:
                await context.abort(grpc.StatusCode.INTERNAL, str(error))
            response = service_pb2.ModelInferResponse(model_name=model.name, model_version="1")
            for name, datatype in (("label", "BYTES"), ("score", "FP32")):
                response.outputs.add(name=name, datatype=datatype, shape=[1, 1])
            response.raw_output_contents.extend([struct.pack("<I", len(label)) + label, struct.pack("<f", 0.9)])
            return response

    server = grpc.aio.server(options=[("grpc.max_receive_message_length", 2**24)])
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(Service(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    return server, port


async def _requests(reader: asyncio.StreamReader, first: bytes) -> AsyncIterator[tuple[str, bytes]]:
    """`(path, body)` of each request on a keep-alive HTTP/1.1 connection."""
    while True:
        with contextlib.suppress(asyncio.IncompleteReadError):
            head = first + await reader.readuntil(b"\r\n\r\n")
            first = b""
            length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
            yield head.split(b" ", 2)[1].decode(), await reader.readexactly(int(length[1]) if length else 0)
            continue
        return


async def _http(model: _Model, path: str, body: bytes) -> tuple[int, bytes]:
    if path != f"/v2/models/{model.name}/infer":
        return 404, json.dumps({"error": f"Request for unknown model: '{path}' is not found"}).encode()
    try:
        label = await model.answer(json.loads(body)["inputs"][0]["data"][0])
    except ValueError as error:
        return 500, json.dumps({"error": str(error)}).encode()
    outputs = [
        {"name": "label", "datatype": "BYTES", "shape": [1, 1], "data": [label]},
        {"name": "score", "datatype": "FP32", "shape": [1, 1], "data": [0.9]},
    ]
    return 200, json.dumps({"model_name": model.name, "model_version": "1", "outputs": outputs}).encode()


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


async def _main(model_name: str, delay_ms: float, workers: int) -> None:
    model = _Model(model_name, delay_ms, workers)
    grpc_server, grpc_port = await _serve_grpc(model)

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            first = await reader.readexactly(4)
            if first == b"PRI ":
                upstream_reader, upstream = await asyncio.open_connection("127.0.0.1", grpc_port)
                upstream.write(first)
                await asyncio.gather(_pipe(reader, upstream), _pipe(upstream_reader, writer))
                return
            async for path, body in _requests(reader, first):
                status, answer = await _http(model, path, body)
                head = f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {len(answer)}\r\n\r\n"
                writer.write(head.encode() + answer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    print(f"127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await grpc_server.wait_for_termination()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--delay-ms", type=float, default=1.0)
    parser.add_argument("--workers", type=int, default=1000)
    arguments = parser.parse_args()
    asyncio.run(_main(arguments.model, arguments.delay_ms, arguments.workers))
