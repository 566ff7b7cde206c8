"""What each hop costs: the same bundle in process, through Triton, and through Envoy, over gRPC and HTTP.

    python -m benchmarks.serving.hops BUNDLE [--rows 1] [--rounds 5] [--seconds 1]

All take turns in one run; figures are medians over the rounds, with half the spread in brackets. Texts are the bundle's
test texts at random, `--rows` of them a request. In process means one process for each instance that answers as fast as
it can, with no client beside it: what the machine could do if serving cost nothing. Where client, Envoy and Triton
share the cores with the model, throughput can't reach that; so each row also says how much processor time a request
took and where, which doesn't depend on who else is busy, and what the server's part of it would give on all cores.
"""

import argparse
import contextlib
import json
import os
import random
import tempfile
import time
from collections import defaultdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

import serving
from benchmarks.serving.asking import Asker
from benchmarks.serving.processes import cpu_s, triton_address
from benchmarks.serving.undisturbed import Watch
from slipway.bundle import EXPECTED, Bundle
from slipway.recipe import Limits, Serve

CONCURRENCY = (1, 8, 32)
REQUESTS = 500
NOBODY_REFUSED_MS = 10_000.0
"""An objective that lets all callers in at once, also with a slow model and several texts a request."""

Runs = dict[tuple[str, int], list[dict[str, Any]]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--rows", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--disturbed", type=float, default=0.05, help="share of the cores that others may take")
    parser.add_argument("--patience", type=float, default=600.0, help="seconds in all to wait for moments like that")
    options = parser.parse_args()
    bundle = Bundle.open(options.bundle)
    texts = drawn(pq.read_table(bundle.path / EXPECTED)["text"].to_pylist(), options.rows)
    with tempfile.TemporaryDirectory() as directory:
        section = Serve(port=0, limits=Limits(slo_ms=NOBODY_REFUSED_MS))
        repository = serving.write_repository(bundle, Path(directory) / "repository", section)
        with serving.start(repository.path, section) as endpoint:
            watch = Watch(options.disturbed, options.patience)
            runs = measure(bundle, endpoint, texts, options, watch)
            about = endpoint.describe()
    show(runs, about, options, watch)


def drawn(texts: list[str], rows: int) -> list[list[str]]:
    draw = random.Random(0)
    return [[draw.choice(texts) for _ in range(rows)] for _ in range(REQUESTS)]


def orders(endpoint: serving.Endpoint, texts: list[list[str]]) -> dict[str, dict[str, Any]]:
    bodies = [
        json.dumps(
            {
                "inputs": [{"name": "text", "shape": [len(rows), 1], "datatype": "BYTES", "data": rows}],
                "outputs": [{"name": "label"}, {"name": "score"}],
            }
        )
        for rows in texts
    ]
    grpc = {"protocol": "grpc", "model": endpoint.model, "texts": texts}
    http = {"protocol": "http", "path": f"/v2/models/{endpoint.model}/infer", "bodies": bodies}
    return {
        "Triton gRPC": grpc | {"address": triton_address(endpoint, "grpc")},
        "Triton HTTP": http | {"address": triton_address(endpoint, "http")},
        "Envoy gRPC": grpc | {"address": endpoint.address},
        "Envoy HTTP": http | {"address": endpoint.address},
    }


def measure(
    bundle: Bundle, endpoint: serving.Endpoint, texts: list[list[str]], options: argparse.Namespace, watch: Watch
) -> Runs:
    about = endpoint.describe()
    runs: Runs = defaultdict(list)
    with contextlib.ExitStack() as stack:
        asker = stack.enter_context(Asker())
        engines = [
            stack.enter_context(Asker("benchmarks.serving.in_process", str(bundle.path), str(about["threads"])))
            for _ in range(about["instances"])
        ]
        doors = orders(endpoint, texts)
        for round_number in range(-1, options.rounds):  # the first one warms up
            for concurrency in CONCURRENCY:
                turn = {"in process": partial(in_process, engines, concurrency, texts, options)}
                for name, order in doors.items():
                    order |= {"mode": "closed", "concurrency": concurrency, "seed": round_number}
                    turn[name] = partial(served, asker, endpoint, order | {"seconds": options.seconds})
                for name, run in turn.items():
                    if round_number < 0:
                        run()
                    else:
                        runs[name, concurrency].append(watch(run))
    return runs


def served(asker: Asker, endpoint: serving.Endpoint, order: dict[str, Any]) -> dict[str, Any]:
    before = cpu_s(endpoint)
    answer = asker(**order)
    after = cpu_s(endpoint)
    return answer | {"used_s": {kind: after[kind] - before[kind] for kind in after} | {"client": answer["cpu_s"]}}


def in_process(
    engines: list[Asker], concurrency: int, texts: list[list[str]], options: argparse.Namespace
) -> dict[str, Any]:
    working = engines[:concurrency]
    for number, engine in enumerate(working):
        engine.order(seconds=options.seconds, texts=texts, seed=number)
    answers = [engine.answer() for engine in working]
    return {
        "latencies_ms": [latency for answer in answers for latency in answer["latencies_ms"]],
        "errors": 0,
        "seconds": max(answer["seconds"] for answer in answers),
        "used_s": {"model": sum(answer["cpu_s"] for answer in answers)},
    }


def show(runs: Runs, about: dict[str, Any], options: argparse.Namespace, watch: Watch) -> None:
    cores = len(os.sched_getaffinity(0))
    print(
        f"{about['model']}: {about['instances']} instances × {about['threads']} thread(s) on {cores} cores, Triton "
        f"{about['triton']}, Envoy {about['envoy']}; {options.rows} text(s) a request, {options.rounds} rounds of "
        f"{options.seconds:g} s each, interleaved; {watch}; {time.strftime('%Y-%m-%d')}\n"
    )
    print("| callers | through | p50 ms | added | p99 ms | requests/s | of in process | CPU ms a request | of cores |")
    print("| ---: | --- | ---: | ---: | ---: | ---: | ---: | --- | ---: |")
    for concurrency in CONCURRENCY:
        base = rate(runs["in process", concurrency])
        alone = percentile(runs["in process", concurrency], 50)
        for name in ("in process", "Triton gRPC", "Triton HTTP", "Envoy gRPC", "Envoy HTTP"):
            answers = runs[name, concurrency]
            queued = name == "in process" and concurrency > 1
            p50, p99 = percentile(answers, 50), percentile(answers, 99)
            used = cpu_ms(answers)
            served = sum(value for kind, value in used.items() if kind != "client")
            refused = sum(answer["errors"] for answer in answers)
            parts = ", ".join(f"{kind} {value:.2f}" for kind, value in used.items() if value >= 0.005)
            print(
                f"| {concurrency} | {name} | {'' if queued else cell(p50)} | "
                f"{f'{np.median(p50) - np.median(alone):+.2f}' if concurrency == 1 else ''} | "
                f"{'' if queued else cell(p99)} | {cell(rate(answers), 0)} | "
                f"{np.median(np.array(rate(answers)) / np.array(base)):.2f} | {parts} | "
                f"{1000 * cores / served:,.0f}/s{f', {refused} refused' if refused else ''} |"
            )


def percentile(answers: list[dict[str, Any]], percent: float) -> list[float]:
    return [float(np.percentile(answer["latencies_ms"], percent)) for answer in answers]


def rate(answers: list[dict[str, Any]]) -> list[float]:
    return [len(answer["latencies_ms"]) / answer["seconds"] for answer in answers]


def cpu_ms(answers: list[dict[str, Any]]) -> dict[str, float]:
    """Of a request, by what used it."""
    kinds = [kind for kind in ("model", "Triton", "Envoy", "client") if kind in answers[0]["used_s"]]
    requests = sum(len(answer["latencies_ms"]) for answer in answers)
    return {kind: 1000 * sum(answer["used_s"][kind] for answer in answers) / requests for kind in kinds}


def cell(values: list[float], digits: int = 2) -> str:
    return f"{np.median(values):,.{digits}f} (±{(max(values) - min(values)) / 2:,.{digits}f})"


if __name__ == "__main__":
    main()
