"""Do `slipway loadtest`'s percentiles agree with a client that shares nothing with it?

    python benchmarks/loadtests/independent_client.py BUNDLE 127.0.0.1:8080 --texts texts.parquet --rates 20 100

Against one endpoint, in turn and several times over: `loadtests.run` (Locust, gevent, tritonclient), and the
hundred lines below (asyncio, grpc.aio, aiohttp; its own schedule, its own clock, its own percentiles). Both count
latency from the scheduled arrival. Percentiles are over the pooled samples of all repeats; beside the ratio stands
the span over the repeats of our own figure, as the noise that the ratio must be read against. `cpu` is the client's
processor time for a request, start-up included.
"""

import argparse
import asyncio
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

PERCENTILES = (50, 90, 95, 99)


async def independent(
    address: str, model: str, texts: list[str], rate: float, seconds: float, seed: int
) -> list[float]:
    """Latencies in ms of Poisson arrivals after two seconds of warm-up, half over gRPC and half over HTTP."""
    import aiohttp
    import grpc
    from tritonclient.grpc import service_pb2, service_pb2_grpc

    draw = random.Random(seed)
    channel = grpc.aio.insecure_channel(address)
    stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
    latencies: list[float] = []

    async def over_grpc(text: str) -> None:
        raw = text.encode()
        request = service_pb2.ModelInferRequest(model_name=model)
        request.inputs.add(name="text", datatype="BYTES", shape=[1, 1])
        request.outputs.add(name="label")
        request.raw_input_contents.append(len(raw).to_bytes(4, "little") + raw)
        await stub.ModelInfer(request)

    async def over_http(session: aiohttp.ClientSession, text: str) -> None:
        tensor = {"name": "text", "datatype": "BYTES", "shape": [1, 1], "data": [text]}
        body = {"inputs": [tensor], "outputs": [{"name": "label"}]}
        async with session.post(f"http://{address}/v2/models/{model}/infer", json=body) as response:
            assert response.status == 200, await response.text()
            await response.read()

    async def one(session: aiohttp.ClientSession, due: float) -> None:
        text = draw.choice(texts)
        await (over_grpc(text) if draw.random() < 0.5 else over_http(session, text))
        if due >= begins:
            latencies.append((time.perf_counter() - due) * 1000)

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        due = time.perf_counter() + 0.2
        begins = due + 2
        tasks = []
        while (due := due + draw.expovariate(rate)) < begins + seconds:
            # asyncio wakes on whole milliseconds, so the last one is spent asking again.
            while (left := due - time.perf_counter()) > 0:
                await asyncio.sleep(left - 0.001 if left > 0.0015 else 0)
            tasks.append(asyncio.create_task(one(session, due)))
        await asyncio.gather(*tasks)
    await channel.close()
    return latencies


def ours(bundle: Path, address: str, texts: Path | None, rate: float, seconds: float, seed: int) -> list[float]:
    import loadtests
    from slipway.bundle import Bundle
    from slipway.recipe.sections import LoadTest

    section = LoadTest(rate=rate, duration_s=seconds, warmup_s=2.0, seed=seed)
    with tempfile.TemporaryDirectory() as scratch:
        verdict = loadtests.run(Bundle.open(bundle), address, section, Path(scratch) / "verdict", texts=texts)
        samples = pq.read_table(verdict.path / "samples.parquet").to_pylist()
    assert all(sample["outcome"] == "ok" for sample in samples), verdict.path
    return [sample["latency_ms"] for sample in samples if not sample["warmup"]]


def measure(
    client: str, bundle: Path, address: str, texts: Path | None, rate: float, seconds: float, seed: int
) -> dict:
    """One run in a process of its own: `{"latencies": …, "cpu_s": …}`."""
    options = [str(bundle), address, *(["--texts", str(texts)] if texts else [])]
    options += ["--client", client, "--rates", str(rate), "--seconds", str(seconds), "--seed", str(seed)]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, __file__, *options], check=True, stdout=subprocess.PIPE, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"latencies": json.loads(done.stdout), "cpu_s": cpu_s}


def report(rate: float, runs: dict[str, list[dict]]) -> None:
    pooled = {client: np.concatenate([run["latencies"] for run in each]) for client, each in runs.items()}
    print(f"\n{rate:g} requests/s, {len(pooled['ours'])} and {len(pooled['independent'])} requests")
    print(f"{'ms':>6} {'ours':>9} {'independent':>12} {'ratio':>7}   ours, least–most of a repeat")
    for percent in PERCENTILES:
        mine, other = (np.percentile(pooled[client], percent) for client in ("ours", "independent"))
        each = [np.percentile(run["latencies"], percent) for run in runs["ours"]]
        print(
            f"{'p' + str(percent):>6} {mine:9.2f} {other:12.2f} {mine / other:7.3f}   {min(each):.2f}–{max(each):.2f}"
        )
    cpu = {client: sum(run["cpu_s"] for run in each) / len(pooled[client]) * 1000 for client, each in runs.items()}
    print(f"{'cpu':>6} {cpu['ours']:9.2f} {cpu['independent']:12.2f} {cpu['ours'] / cpu['independent']:7.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("address")
    parser.add_argument("--texts", type=Path)
    parser.add_argument("--rates", type=float, nargs="+", default=[20.0, 100.0])
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--repeats", type=int, default=4)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--client", choices=["ours", "independent"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    rate, seconds = options.rates[0], options.seconds
    if options.client == "ours":
        print(json.dumps(ours(options.bundle, options.address, options.texts, rate, seconds, options.seed)))
        return
    if options.client == "independent":
        texts = pq.read_table(options.texts or options.bundle / "expected.parquet")["text"].to_pylist()
        model = json.loads((options.bundle / "bundle.json").read_text(encoding="utf-8"))["name"]
        run = independent(options.address, model, texts, rate, seconds, options.seed)
        print(json.dumps(asyncio.run(run)))
        return
    print(
        f"{os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f}, {options.repeats} × {seconds:g} s each in turn"
    )
    for rate in options.rates:
        runs: dict[str, list[dict]] = {"ours": [], "independent": []}
        for repeat in range(options.repeats):
            for client in list(runs)[:: 1 if repeat % 2 == 0 else -1]:
                runs[client].append(
                    measure(
                        client, options.bundle, options.address, options.texts, rate, seconds, options.seed + repeat
                    )
                )
        report(rate, runs)


if __name__ == "__main__":
    main()
