"""Do `slipway loadtest`'s percentiles agree with a client that shares nothing with it?

    python benchmarks/loadtests/independent_client.py BUNDLE 127.0.0.1:8080 --rates 20 100

Against one endpoint, in turn and several times over, two clients send the same texts at the same times:
`loadtests.run` (Locust, gevent, tritonclient), and the lines below (asyncio, grpc.aio, aiohttp; a clock, a loop and
percentiles of their own). They share the list of arrivals, as two Poisson draws would differ by more than what is
looked for. Both count latency from the scheduled arrival. Percentiles are over the pooled samples of all repeats;
beside the ratio stands the span over the repeats of either figure: the noise that the ratio must be read against.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from loadtests.plan import draw_plan
from slipway.bundle import Bundle
from slipway.recipe import LoadTest

PERCENTILES = (50, 90, 95, 99)


async def independent(address: str, model: str, texts: list[str], arrivals: list[dict]) -> list[float]:
    """Latencies in ms of `arrivals` (`scheduled_s`, `protocol`, `text_index`), those before second 0 left out."""
    import aiohttp
    import grpc
    from tritonclient.grpc import service_pb2, service_pb2_grpc

    channel = grpc.aio.insecure_channel(address)
    stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)

    async def over_grpc(text: str) -> str:
        raw = text.encode()
        request = service_pb2.ModelInferRequest(model_name=model)
        request.inputs.add(name="text", datatype="BYTES", shape=[1, 1])
        request.outputs.add(name="label")
        request.raw_input_contents.append(len(raw).to_bytes(4, "little") + raw)
        response = await stub.ModelInfer(request)
        return response.raw_output_contents[0][4:].decode()

    async def over_http(session: aiohttp.ClientSession, text: str) -> str:
        tensor = {"name": "text", "datatype": "BYTES", "shape": [1, 1], "data": [text]}
        body = {"inputs": [tensor], "outputs": [{"name": "label"}]}
        async with session.post(f"http://{address}/v2/models/{model}/infer", json=body) as response:
            assert response.status == 200, await response.text()
            return (await response.json())["outputs"][0]["data"][0]

    async def one(session: aiohttp.ClientSession, arrival: dict, due: float) -> float:
        text = texts[arrival["text_index"]]
        assert await (over_grpc(text) if arrival["protocol"] == "grpc" else over_http(session, text))
        return (time.perf_counter() - due) * 1000

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        begins = time.perf_counter() + 0.3 - arrivals[0]["scheduled_s"]
        tasks = []
        for arrival in arrivals:
            due = begins + arrival["scheduled_s"]
            # asyncio wakes on whole milliseconds, so the last one is spent asking again.
            while (left := due - time.perf_counter()) > 0:
                await asyncio.sleep(left - 0.001 if left > 0.0015 else 0)
            tasks.append(asyncio.create_task(one(session, arrival, due)))
        latencies = await asyncio.gather(*tasks)
    await channel.close()
    return [latency for latency, arrival in zip(latencies, arrivals, strict=True) if arrival["scheduled_s"] >= 0]


def ours(options: argparse.Namespace, rate: float, seed: int) -> list[dict]:
    """Samples of the load test."""
    import loadtests

    with tempfile.TemporaryDirectory() as scratch:
        section = _section(options, rate, seed)
        out = Path(scratch) / "verdict"
        verdict = loadtests.run(Bundle.open(options.bundle), options.address, section, out, texts=options.texts)
        samples = pq.read_table(verdict.path / "samples.parquet").to_pylist()
    assert all(sample["outcome"] == "ok" for sample in samples)
    return [sample for sample in samples if not sample["warmup"]]


def theirs(options: argparse.Namespace, rate: float, seed: int) -> list[dict]:
    """Samples of the independent client, in a process of its own."""
    texts = pq.read_table(options.texts or options.bundle / "expected.parquet")["text"].to_pylist()
    section = _section(options, rate, seed)
    plan = draw_plan(section, len(texts))
    arrivals = [
        {"scheduled_s": due, "protocol": section.protocols[protocol], "text_index": text}
        for due, protocol, text in zip(
            plan.scheduled_s.tolist(), plan.protocol.tolist(), plan.text_index.tolist(), strict=True
        )
    ]
    order = json.dumps([options.address, Bundle.open(options.bundle).spec.name, texts, arrivals])
    command = [sys.executable, __file__, "--replay"]
    done = subprocess.run(command, input=order, check=True, stdout=subprocess.PIPE, text=True)
    measured = [arrival for arrival in arrivals if arrival["scheduled_s"] >= 0]
    return [
        arrival | {"latency_ms": latency} for arrival, latency in zip(measured, json.loads(done.stdout), strict=True)
    ]


def report(rate: float, runs: dict[str, list[list[dict]]]) -> None:
    """Percentiles of both side by side: all requests, then by protocol."""
    print(f"\n{rate:g} requests/s, {sum(map(len, runs['ours']))} requests each")
    print(f"{'ms':>10} {'ours':>8} {'independent':>12} {'ratio':>6}   ours by repeat    independent by repeat")
    for protocol in (None, "grpc", "http"):
        latencies = {
            client: [[row["latency_ms"] for row in run if protocol in (None, row["protocol"])] for run in each]
            for client, each in runs.items()
        }
        for percent in PERCENTILES:
            pooled = {client: np.percentile(np.concatenate(each), percent) for client, each in latencies.items()}
            spans = [
                f"{min(figures):.2f}–{max(figures):.2f}"
                for figures in ([np.percentile(run, percent) for run in each] for each in latencies.values())
            ]
            label = f"{protocol or ''} p{percent}"
            ratio = pooled["ours"] / pooled["independent"]
            figures = f"{label:>10} {pooled['ours']:8.2f} {pooled['independent']:12.2f} {ratio:6.3f}"
            print(f"{figures}   {spans[0]:<17} {spans[1]}")


def _section(options: argparse.Namespace, rate: float, seed: int) -> LoadTest:
    return LoadTest(rate=rate, duration_s=options.seconds, warmup_s=2.0, seed=seed)


def main() -> None:
    if sys.argv[1:] == ["--replay"]:
        print(json.dumps(asyncio.run(independent(*json.load(sys.stdin)))))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("address")
    parser.add_argument("--texts", type=Path)
    parser.add_argument("--rates", type=float, nargs="+", default=[20.0, 100.0])
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--repeats", type=int, default=4)
    options = parser.parse_args()
    load = os.getloadavg()[0]
    print(f"{os.cpu_count()} cores, load average {load:.1f}, {options.repeats} × {options.seconds:g} s each, in turn")
    for rate in options.rates:
        runs: dict[str, list[list[dict]]] = {"ours": [], "independent": []}
        clients = {"ours": ours, "independent": theirs}
        for repeat in range(options.repeats):
            for client in list(clients)[:: 1 if repeat % 2 == 0 else -1]:
                runs[client].append(clients[client](options, rate, repeat))
        report(rate, runs)


if __name__ == "__main__":
    main()
