"""The client of the serving benchmarks: a process of its own that shares no code with Slipway's client or load test.

It takes orders as lines of JSON and answers each with one. HTTP is written to sockets by hand and gRPC sends bytes that
were made beforehand, so that little of a small machine goes into asking; what does is reported (`cpu_s`).

    closed: `concurrency` callers, each asks again as soon as it is answered
    open:   Poisson arrivals at `rate`; latency counts from the scheduled time, whatever the server does
"""

import asyncio
import json
import os
import random
import subprocess
import sys
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Self

_CONNECTIONS = 256
_STRAGGLERS_S = 2.0

Ask = Callable[[bytes], Awaitable[bool]]


class Asker:
    """The process, from its owner's side."""

    def __init__(self, module: str = "benchmarks.serving.asking", *arguments: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "TOKENIZERS_PARALLELISM": "false"},
        )

    def order(self, **order: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()

    def answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the asking process ended"
        return dict(json.loads(line))

    def __call__(self, **order: Any) -> dict[str, Any]:
        self.order(**order)
        return self.answer()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


class _Connection(asyncio.Protocol):
    """One HTTP/1.1 connection, one request at a time."""

    def __init__(self) -> None:
        self._received = b""
        self._answered: asyncio.Future[bool] | None = None
        self._transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def ask(self, payload: bytes) -> "asyncio.Future[bool]":
        self._answered = asyncio.get_running_loop().create_future()
        if self._transport.is_closing():
            # Nothing would be heard of it any more.
            self._answered.set_result(False)
        else:
            self._transport.write(payload)
        return self._answered

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, separator, body = self._received.partition(b"\r\n\r\n")
        if not separator or self._answered is None:
            return
        lowered = head.lower()
        _, found, rest = lowered.partition(b"content-length:")
        whole = len(body) >= int(rest.split(b"\r\n", 1)[0]) if found else body.endswith(b"0\r\n\r\n")
        if whole:
            self._received = b""
            answered, self._answered = self._answered, None
            if not answered.done():
                answered.set_result(head.startswith(b"HTTP/1.1 200"))

    def connection_lost(self, _error: Exception | None) -> None:
        if self._answered is not None and not self._answered.done():
            self._answered.set_result(False)

    def close(self) -> None:
        self._transport.close()


async def _http(order: dict[str, Any], connections: int) -> tuple[list[bytes], Ask, Callable[[], Awaitable[None]]]:
    host, _, port = order["address"].rpartition(":")
    payloads = []
    for body in order["bodies"]:
        raw = body.encode()
        head = f"POST {order['path']} HTTP/1.1\r\nhost: {order['address']}\r\ncontent-type: application/json\r\n"
        payloads.append(f"{head}content-length: {len(raw)}\r\n\r\n".encode() + raw)
    loop = asyncio.get_running_loop()

    async def connect() -> _Connection:
        _, connection = await loop.create_connection(_Connection, host, int(port))
        return connection

    everyone = [await connect() for _ in range(connections)]
    idle = asyncio.LifoQueue[_Connection]()
    for connection in everyone:
        idle.put_nowait(connection)

    async def ask(payload: bytes) -> bool:
        connection = await idle.get()
        try:
            return await connection.ask(payload)
        finally:
            idle.put_nowait(connection)

    async def close() -> None:
        for connection in everyone:
            connection.close()

    return payloads, ask, close


async def _grpc(order: dict[str, Any]) -> tuple[list[bytes], Ask, Callable[[], Awaitable[None]]]:
    import grpc
    from tritonclient.grpc import service_pb2

    payloads = []
    for texts in order["texts"]:
        request = service_pb2.ModelInferRequest(model_name=order["model"])
        request.inputs.add(name="text", datatype="BYTES", shape=[len(texts), 1])
        for name in ("label", "score"):
            request.outputs.add(name=name)
        raws = [text.encode() for text in texts]
        request.raw_input_contents.append(b"".join(len(raw).to_bytes(4, "little") + raw for raw in raws))
        payloads.append(request.SerializeToString())
    channel = grpc.aio.insecure_channel(order["address"], [("grpc.use_local_subchannel_pool", 1)])
    method = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")

    async def ask(payload: bytes) -> bool:
        try:
            await method(payload)
        except grpc.RpcError:
            return False
        return True

    return payloads, ask, channel.close


async def _closed(order: dict[str, Any], payloads: list[bytes], ask: Ask) -> dict[str, Any]:
    latencies: list[float] = []
    errors = 0
    ends = time.perf_counter() + order["seconds"]
    draw = random.Random(order["seed"])

    async def caller() -> None:
        nonlocal errors
        while (started := time.perf_counter()) < ends:
            if await ask(draw.choice(payloads)):
                latencies.append(1000 * (time.perf_counter() - started))
            else:
                errors += 1
                await asyncio.sleep(0.01)

    began = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(order["concurrency"])))
    return {"latencies_ms": latencies, "errors": errors, "seconds": time.perf_counter() - began}


async def _open(order: dict[str, Any], payloads: list[bytes], ask: Ask) -> dict[str, Any]:
    """Latencies after the warm-up; what isn't answered in time is an error."""
    draw = random.Random(order["seed"])
    latencies: list[float] = []
    lags: list[float] = []
    errors = unanswered = 0
    tasks: deque[asyncio.Task[None]] = deque()

    async def one(payload: bytes, due: float, counts: bool) -> None:
        nonlocal errors, unanswered
        answered = await ask(payload)
        unanswered -= 1
        if counts and answered:
            latencies.append(1000 * (time.perf_counter() - due))
        elif counts:
            errors += 1

    begins = time.perf_counter() + 0.1
    due = begins
    measured = begins + order["warmup"]
    ends = measured + order["seconds"]
    while due < ends:
        if (wait := due - time.perf_counter()) > 0:
            await asyncio.sleep(wait)
        if unanswered > max(_CONNECTIONS, 2 * order["rate"]):
            break  # two seconds behind: there is nothing left to learn
        if due >= measured:
            lags.append(1000 * (time.perf_counter() - due))
        unanswered += 1
        tasks.append(asyncio.create_task(one(draw.choice(payloads), due, due >= measured)))
        due += draw.expovariate(order["rate"])
    while unanswered and time.perf_counter() < ends + _STRAGGLERS_S:
        await asyncio.sleep(0.01)
    for task in tasks:
        task.cancel()
    return {"latencies_ms": latencies, "errors": errors + unanswered, "lags_ms": lags, "seconds": order["seconds"]}


async def _carry_out(order: dict[str, Any]) -> dict[str, Any]:
    connections = order["concurrency"] if order["mode"] == "closed" else _CONNECTIONS
    prepare = _grpc(order) if order["protocol"] == "grpc" else _http(order, connections)
    payloads, ask, close = await prepare
    used = time.process_time()
    result = await (_closed if order["mode"] == "closed" else _open)(order, payloads, ask)
    result["cpu_s"] = time.process_time() - used
    await close()
    return result


def main() -> None:
    for line in sys.stdin:
        print(json.dumps(asyncio.run(_carry_out(json.loads(line)))), flush=True)


if __name__ == "__main__":
    main()
