"""How a machine's cores are best given to a model: threads × instances, streams, pinning, and what to pad to.

    python benchmarks/export/engines.py BUNDLE [--model FILE --engine openvino] [--seconds 2] [--rounds 3] [--breakdown]

Every way of using the cores runs all of its instances at once, each in a process of its own, for some seconds; rounds
take turns. Printed: median texts/s of all instances together, spread, the ratio to the first row, and the share of the
machine's peak that they reach. Then, with one thread, single texts of all lengths in random order for several roundings
of the token count, and, with --breakdown, where the time goes. Texts are the bundle's own (`expected.parquet`).
"""

import argparse
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from export.measurement import Corpus, Shape, roofline
from export.measurement.breakdown import breakdown
from slipway.bundle import EXPECTED, TOKENIZER, Bundle, Target
from slipway.engines import defaults, open_session
from slipway.predictor import Encoder

SHAPES = [Shape(1, 32), Shape(8, 32), Shape(32, 32), Shape(8, 128)]
PADDINGS = [1, 8, 16, 32, 64]


@dataclass(frozen=True)
class Way:
    """So many instances of so many threads; `streams` > 1 are OpenVINO's own instances in one process."""

    threads: int
    instances: int
    streams: int = 1
    pinned: bool = False

    def __str__(self) -> str:
        how = f"{self.threads} threads × {self.instances} instances"
        if self.streams > 1:
            how = f"{self.threads} threads in {self.streams} streams"
        return how + (", pinned" if self.pinned else "")


def ways(engine: str, cores: int) -> list[Way]:
    found = [Way(cores, 1), Way(1, cores), Way(1, 1)]
    if engine == "openvino":
        found += [Way(1, cores, pinned=True), Way(cores, 1, streams=cores)]
    return found


def runner(model: Path, target: Target, way: Way, batch: dict[str, Any]) -> tuple[Callable[[], Any], int]:
    """What runs the batch, and how many batches one call runs."""
    if target.engine != "openvino" or (way.streams == 1 and not way.pinned):
        session = open_session(model, target, threads=way.threads)
        return lambda: session.run(batch), 1
    import openvino

    from slipway.engines.openvino import compile_model

    extra: dict[str, Any] = {"ENABLE_CPU_PINNING": way.pinned, "NUM_STREAMS": way.streams}
    if way.streams > 1:
        extra["PERFORMANCE_HINT"] = "THROUGHPUT"
    compiled = compile_model(model, target, way.threads, **extra)
    inputs = [batch[value.any_name] for value in compiled.inputs]
    if way.streams == 1:
        request = compiled.create_infer_request()
        return lambda: request.infer(inputs, share_inputs=True, share_outputs=True), 1
    queue = openvino.AsyncInferQueue(compiled, way.streams)
    each = 8

    def run() -> None:
        for _ in range(each):
            queue.start_async(inputs, share_inputs=True)
        queue.wait_all()

    return run, each


def instance(
    model: Path, target: Target, way: Way, batch: dict[str, Any], seconds: float, start: Barrier, out: Any
) -> None:
    """One instance: batches that it ran and seconds that it took, from the moment that all are ready."""
    run, batches = runner(model, target, way, batch)
    for _ in range(3):
        run()
    start.wait()
    began = time.perf_counter()
    done = 0
    while time.perf_counter() - began < seconds:
        run()
        done += batches
    out.put(done / (time.perf_counter() - began))


def throughput(model: Path, target: Target, way: Way, batch: dict[str, Any], seconds: float) -> float:
    """Batches a second of all instances together."""
    spawn = multiprocessing.get_context("spawn")
    start, out = spawn.Barrier(way.instances), spawn.Queue()
    processes = [
        spawn.Process(target=instance, args=(model, target, way, batch, seconds, start, out))
        for _ in range(way.instances)
    ]
    for process in processes:
        process.start()
    rates = [out.get(timeout=120) for _ in processes]
    for process in processes:
        process.join()
    return sum(rates)


def compare_ways(model: Path, target: Target, corpus: Corpus, seconds: float, rounds: int) -> None:
    cores = len(os.sched_getaffinity(0))
    peaks = {threads: roofline.peaks(threads) for threads in {1, cores}}
    for shape in SHAPES:
        batch, operations = corpus.batch(shape), roofline.operations(model, shape, target.precision_hint)
        taken: dict[Way, list[float]] = {way: [] for way in ways(target.engine, cores)}
        for _ in range(rounds):
            for way, rates in taken.items():
                rates.append(throughput(model, target, way, batch, seconds) * shape.batch)
        first = statistics.median(next(iter(taken.values())))
        for way, rates in taken.items():
            rate = statistics.median(rates)
            reached = roofline.share(operations, rate, peaks[way.threads * way.instances])
            spread = (max(rates) - min(rates)) / rate
            print(
                f"{shape!s:>7}  {way!s:<34} {rate:9.1f} texts/s  ±{spread / 2:4.0%}  {rate / first:5.2f}×  "
                f"{reached:4.0%} of the peaks"
            )


def compare_paddings(bundle: Bundle, model: Path, target: Target, texts: list[str], rounds: int) -> None:
    tokenization = bundle.spec.tokenization
    shuffled = [texts[row] for row in np.random.default_rng(0).permutation(len(texts))[:300]]
    session = open_session(model, target, threads=1)
    taken: dict[int, list[float]] = {multiple: [] for multiple in PADDINGS}
    for number in range(rounds + 1):
        for multiple, seconds in taken.items():
            encode = Encoder(bundle.path / TOKENIZER, tokenization, pad_to_multiple_of=multiple)
            batches = [encode([text]) for text in shuffled]
            started = time.perf_counter()
            for batch in batches:
                session.run(batch)
            if number:  # the first round compiles kernels for the shapes
                seconds.append((time.perf_counter() - started) / len(batches))
    first = statistics.median(taken[1])
    for multiple, seconds in taken.items():
        median = statistics.median(seconds)
        print(f"padded to multiples of {multiple:>2}: {median * 1e3:6.3f} ms a text  {first / median:5.2f}×")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--model", type=Path, help="an ONNX file for the same tokenizer; default: the bundle's")
    parser.add_argument("--engine", choices=["onnxruntime", "openvino"], help="default: the bundle's")
    parser.add_argument("--precision", choices=["fp32", "int8"], help="default: the bundle's")
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--breakdown", action="store_true")
    asked = parser.parse_args()
    bundle = Bundle.open(asked.bundle)
    target = bundle.target("cpu")
    model = asked.model or bundle.path / target.model
    if asked.engine:
        target = target.model_copy(update={"engine": asked.engine, **defaults(asked.engine)})
    if asked.precision:
        target = target.model_copy(update={"precision": asked.precision})
    texts = pq.read_table(bundle.path / EXPECTED)["text"].to_pylist()
    corpus = Corpus(Encoder(bundle.path / TOKENIZER, bundle.spec.tokenization), texts)
    print(f"{model}, {target.engine}, {target.precision}, {len(os.sched_getaffinity(0))} cores")
    compare_ways(model, target, corpus, asked.seconds, asked.rounds)
    compare_paddings(bundle, model, target, texts, asked.rounds)
    if asked.breakdown:
        for shape in SHAPES:
            shares = breakdown(model, target, corpus.batch(shape))
            print(f"{shape!s:>7}  " + "  ".join(f"{kind} {value:.0%}" for kind, value in shares.items()))


if __name__ == "__main__":
    main()
