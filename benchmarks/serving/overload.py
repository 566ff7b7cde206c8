"""Overload: what becomes of the requests when three times as many come as can be answered.

    python -m benchmarks.serving.overload BUNDLE [--slo-ms 100] [--seconds 20] [--instances N]

An endpoint is started with the objective, and its capacity is searched: the highest rate of Poisson arrivals at which
99 % of all requests are answered within the objective and less than 1 in 1000 is refused. Then it is loaded with 1 and
3 times that. Goodput is what was answered within the objective. Latency counts from the scheduled time of a request, so
that the client's own delay is in it; how much that was is in the table.

HTTP, keep-alive, as many connections as are needed at a time. Client, Envoy and Triton share the machine, so the client
is no library but a few lines: at 3 times capacity it must not be what takes the cores.
"""

import argparse
import asyncio
import json
import platform
import random
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

import serving
from serving.protocol import inference_body
from slipway.bundle import EXPECTED, Bundle
from slipway.recipe import Limits, Serve

_PROBE_S = 5.0
_SETTLE_S = 2.0
_GROWTH = 1.15
_REFUSED = "503"


@dataclass
class Run:
    """What became of one rate."""

    rate: float
    seconds: float
    slo_ms: float
    latencies: dict[str, list[float]] = field(default_factory=dict)
    """Milliseconds from the scheduled time, by status."""
    lags: list[float] = field(default_factory=list)
    """Milliseconds that the client was late."""

    @property
    def statuses(self) -> Counter[str]:
        return Counter({status: len(taken) for status, taken in self.latencies.items()})

    @property
    def goodput(self) -> float:
        return sum(taken <= self.slo_ms for taken in self.latencies.get("200", [])) / self.seconds

    def percentile(self, status: str, percent: float) -> float:
        taken = self.latencies.get(status)
        return float(np.percentile(taken, percent)) if taken else float("nan")

    @property
    def meets_slo(self) -> bool:
        total = self.statuses.total()
        good = sum(taken <= self.slo_ms for taken in self.latencies.get("200", []))
        return good >= 0.99 * total and self.statuses[_REFUSED] <= 0.001 * total


class Caller:
    """A pool of keep-alive connections to `host:port`."""

    def __init__(self, address: str, path: str) -> None:
        self._host, _, port = address.rpartition(":")
        self._port = int(port)
        self._head = f"POST {path} HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\ncontent-length: "
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def ask(self, body: bytes) -> str:
        """The status of the answer, or the name of what went wrong."""
        try:
            reader, writer = self._idle.pop() if self._idle else await asyncio.open_connection(self._host, self._port)
            writer.write(f"{self._head}{len(body)}\r\n\r\n".encode() + body)
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
            length = int(head.partition("content-length:")[2].partition("\r\n")[0])
            await reader.readexactly(length)
            self._idle.append((reader, writer))
            return head.split(" ", 2)[1]
        except (OSError, asyncio.IncompleteReadError, ValueError) as error:
            return type(error).__name__

    def close(self) -> None:
        for _, writer in self._idle:
            writer.close()


async def drive(caller: Caller, bodies: Sequence[bytes], rate: float, seconds: float, slo_ms: float) -> Run:
    """Poisson arrivals for `seconds`, after `_SETTLE_S` of them that don't count."""
    run = Run(rate, seconds, slo_ms)
    chance = random.Random(7)
    tasks: set[asyncio.Task[None]] = set()
    begin = time.perf_counter()
    due = begin

    async def one(scheduled: float, body: bytes) -> None:
        lag = time.perf_counter() - scheduled
        status = await caller.ask(body)
        if scheduled - begin >= _SETTLE_S:
            run.lags.append(1000 * lag)
            run.latencies.setdefault(status, []).append(1000 * (time.perf_counter() - scheduled))

    while due - begin < _SETTLE_S + seconds:
        pause = due - time.perf_counter()
        if pause > 0:
            await asyncio.sleep(pause)
        task = asyncio.create_task(one(due, chance.choice(bodies)))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        due += chance.expovariate(rate)
    await asyncio.gather(*tasks)
    return run


async def search(caller: Caller, bodies: Sequence[bytes], slo_ms: float) -> float:
    """The highest rate that met the objective: doubled until it doesn't, then in steps of `_GROWTH` from below."""
    rate = 25.0
    while (await drive(caller, bodies, 2 * rate, _PROBE_S, slo_ms)).meets_slo:
        rate *= 2
    while (await drive(caller, bodies, _GROWTH * rate, _PROBE_S, slo_ms)).meets_slo:
        rate *= _GROWTH
    return rate


async def measure(address: str, model: str, bodies: Sequence[bytes], slo_ms: float, seconds: float) -> list[Run]:
    caller = Caller(address, f"/v2/models/{model}/infer")
    capacity = await search(caller, bodies, slo_ms)
    runs = [await drive(caller, bodies, times * capacity, seconds, slo_ms) for times in (1, 3)]
    caller.close()
    return runs


def show(runs: Sequence[Run], about: dict[str, object]) -> None:
    [once, _] = runs
    table = Table(
        title=f"{about['model']}, {about['instances']} instances × {about['threads']} thread(s), "
        f"objective {once.slo_ms:g} ms at p99, {once.seconds:g} s each, {platform.processor() or platform.machine()}; "
        "client, Envoy and Triton on one machine"
    )
    for column in (
        "offered /s", "goodput /s", "of 1×", "answered p50 ms", "p99 ms", "refused", "refused p50 ms", "p99 ms",
        "other", "client late p99 ms",
    ):  # fmt: skip
        table.add_column(column, justify="right")
    for run in runs:
        other = run.statuses.total() - run.statuses["200"] - run.statuses[_REFUSED]
        table.add_row(
            f"{run.rate:.0f}", f"{run.goodput:.0f}", f"{run.goodput / once.goodput:.0%}",
            f"{run.percentile('200', 50):.1f}", f"{run.percentile('200', 99):.1f}",
            f"{run.statuses[_REFUSED] / run.statuses.total():.1%}",
            f"{run.percentile(_REFUSED, 50):.1f}", f"{run.percentile(_REFUSED, 99):.1f}",
            str(other), f"{np.percentile(run.lags, 99):.1f}",
        )  # fmt: skip
    Console(width=150).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--slo-ms", type=float, default=100.0)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--instances", type=int)
    arguments = parser.parse_args()
    bundle = Bundle.open(arguments.bundle)
    texts = pq.read_table(bundle.path / EXPECTED, columns=["text"])["text"].to_pylist()
    bodies = [json.dumps(inference_body(text)).encode() for text in texts[:2000]]
    section = Serve(port=0, instances=arguments.instances, limits=Limits(slo_ms=arguments.slo_ms))
    with tempfile.TemporaryDirectory() as directory:
        repository = serving.write_repository(bundle, Path(directory) / "repository", section)
        with serving.start(repository.path, section) as endpoint:
            runs = asyncio.run(measure(endpoint.address, endpoint.model, bodies, arguments.slo_ms, arguments.seconds))
            show(runs, endpoint.describe())


if __name__ == "__main__":
    main()
