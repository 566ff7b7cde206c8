"""Slipway beside servers that one would pick instead: the same checkpoint, machine, client and texts.

    python -m benchmarks.serving.peers CHECKPOINT BUNDLE [--environments FOLDER] [--slo-ms 100] [--repeats 3]

Served over HTTP, one text a request: the checkpoint in eager PyTorch by LitServe, FastAPI, BentoML and Infinity, each
in an environment of its own (`contenders.py`, `peers/`); by Slipway, Triton behind Envoy, the dense model in fp32, so
that it is known what the server and the engine are worth without compression, and BUNDLE's model.

First, 16 callers that ask again as soon as they are answered: processor time that a request takes at the server, and
what that would give on all cores if nobody else used them. It is the figure to look at on a machine that is shared.
Capacity is the highest Poisson rate at which p99 stays within the objective and nothing fails, found by bracketing and
bisection to 5 %; latency counts from the scheduled arrival. All servers are up at once and take turns, repeat by
repeat (`--repeats 0` leaves it out). A peer that can't be installed or started is a row that says so.
"""

import argparse
import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

import serving
from benchmarks.serving.asking import Asker
from benchmarks.serving.contenders import PEERS_OF_SLIPWAY, Contender, Peer, install, running
from benchmarks.serving.processes import cpu_s
from benchmarks.serving.undisturbed import Watch
from export.search.structures import dense_structure
from export.source import Source
from serving.protocol import inference_body
from slipway.artifacts import canonical_digest, write_artifact
from slipway.bundle import EXPECTED, SPEC, TOKENIZER, Bundle, Check, Target
from slipway.engines import defaults
from slipway.predictor import Predictor
from slipway.recipe import Serve

TEXTS = 500
QUIET_RATE = 20.0
"""Requests/s at which latency without queueing is looked at; every contender can do so many."""
PRECISION = 1.05
DENSE, COMPRESSED = "Slipway, dense fp32", "Slipway, compressed"

Ask = Callable[..., dict[str, Any]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--environments", type=Path, default=Path(".cache/peers"))
    parser.add_argument("--slo-ms", type=float, default=100.0)
    parser.add_argument("--seconds", type=float, default=5.0, help="of one probe, after a warm-up of 1.5 s")
    parser.add_argument("--rounds", type=int, default=5, help="of 16 callers")
    parser.add_argument("--repeats", type=int, default=3, help="of the search for the capacity")
    parser.add_argument("--only", nargs="*", help="names of peers")
    parser.add_argument("--disturbed", type=float, default=0.05, help="share of the cores that others may take")
    parser.add_argument("--patience", type=float, default=900.0, help="seconds in all to wait for moments like that")
    options = parser.parse_args()
    # So that the servers are ended, whoever ends this.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    bundle = Bundle.open(options.bundle)
    texts = pq.read_table(bundle.path / EXPECTED)["text"].to_pylist()
    texts = random.Random(0).sample(texts, min(TEXTS, len(texts)))
    with tempfile.TemporaryDirectory() as work, contextlib.ExitStack() as stack:
        dense = dense_bundle(options.checkpoint, Path(work))
        contenders, missing = started(options, stack)
        contenders += [
            stack.enter_context(slipway(DENSE, dense, Path(work) / "dense-repository")),
            stack.enter_context(slipway(COMPRESSED, bundle, Path(work) / "repository")),
        ]
        asker = stack.enter_context(Asker())
        agreement = {contender.name: agree(contender, contenders[-2], texts[:100]) for contender in contenders}
        watch = Watch(options.disturbed, options.patience)
        ask = partial(watched, watch, asker)
        work_ms = saturate(ask, contenders, texts, options)
        quiet, capacities = measure(ask, contenders, texts, options)
    show_work(contenders, missing, agreement, work_ms, watch)
    if capacities:
        show_capacities(contenders, quiet, capacities, options, watch)


def dense_bundle(checkpoint: Path, work: Path) -> Bundle:
    """The checkpoint's graph in fp32, rewritten for inference as export does it, and nothing else."""
    source = Source.open(checkpoint)
    structure = dense_structure(source, work / "structures")
    target = Target(model="cpu/model.onnx", precision="fp32", **defaults("onnxruntime"))
    out = work / "dense"
    with write_artifact(out, "bundle", name="dense", inputs=canonical_digest("dense"), parents=[]) as draft:
        (draft.path / "cpu").mkdir()
        (draft.path / target.model).write_bytes(structure.model.read_bytes())
        (draft.path / TOKENIZER).write_bytes(structure.tokenizer.read_bytes())
        spec = structure.spec.model_copy(update={"name": "dense", "targets": {"cpu": target}})
        questions = ["This is excellent.", "It was terrible."]
        answers = Predictor(draft.path, spec, target).predict(questions)
        checks = [
            Check(text=text, label=label, score=float(score))
            for text, label, score in zip(questions, answers.labels, answers.scores, strict=True)
        ]
        spec = spec.model_copy(update={"checks": checks})
        draft.write_json(SPEC, spec.model_dump(mode="json"))
    return Bundle.open(out)


def started(options: argparse.Namespace, stack: contextlib.ExitStack) -> tuple[list[Contender], dict[str, str]]:
    """Peers that answer, and why the others don't."""
    found, missing = [], {}
    for peer in PEERS_OF_SLIPWAY:
        if options.only is not None and peer.name.partition(",")[0] not in options.only:
            continue
        try:
            found.append(stack.enter_context(start(peer, options)))
        except subprocess.CalledProcessError:
            missing[peer.name] = f"can't be installed: {' '.join(peer.requirements)}"
        except RuntimeError as error:
            print(error)
            missing[peer.name] = "doesn't start"
    return found, missing


def start(peer: Peer, options: argparse.Namespace) -> contextlib.AbstractContextManager[Contender]:
    python = install(peer, options.environments.absolute())
    return running(peer, python, options.checkpoint.absolute())


@contextlib.contextmanager
def slipway(name: str, bundle: Bundle, repository: Path) -> Any:
    serving.write_repository(bundle, repository, Serve())
    with serving.start(repository, Serve(port=0)) as endpoint:
        about = endpoint.describe()
        yield Contender(
            name,
            endpoint.address,
            f"/v2/models/{endpoint.model}/infer",
            inference_body,
            lambda answer: str(answer["outputs"][0]["data"][0]),
            lambda: sum(cpu_s(endpoint).values()),
            {"triton": about["triton"], "envoy": about["envoy"]},
        )


def agree(contender: Contender, dense: Contender, texts: list[str]) -> float:
    """Share of texts that get the dense model's label: whether it is the same model that is served."""
    return float(np.mean([contender.ask(text) == dense.ask(text) for text in texts]))


def watched(watch: Watch, asker: Asker, **order: Any) -> dict[str, Any]:
    """What the asker answers, in a run that others didn't disturb."""
    return watch(lambda: asker(**order))


def saturate(
    asker: Ask, contenders: list[Contender], texts: list[str], options: argparse.Namespace
) -> dict[str, list[float]]:
    """Processor time of the server in ms for each request, round by round; the first round warms up."""
    found: dict[str, list[float]] = defaultdict(list)
    for round_number in range(-1, options.rounds):
        for contender in contenders:
            before = contender.cpu_s()
            answer = asker(**contender.order(texts), mode="closed", concurrency=16, seconds=2.0, seed=round_number)
            if round_number >= 0:
                found[contender.name].append(1000 * (contender.cpu_s() - before) / len(answer["latencies_ms"]))
    return found


def measure(
    asker: Ask, contenders: list[Contender], texts: list[str], options: argparse.Namespace
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Latencies in ms at `QUIET_RATE`, pooled, and capacities in requests/s, one for each repeat."""
    quiet: dict[str, list[float]] = defaultdict(list)
    capacities: dict[str, list[float]] = defaultdict(list)
    for repeat in range(options.repeats):
        for contender in contenders:
            order = contender.order(texts)
            answer = asker(**order, mode="open", rate=QUIET_RATE, warmup=1.0, seconds=options.seconds, seed=repeat)
            quiet[contender.name] += answer["latencies_ms"]
            capacities[contender.name].append(capacity(asker, order, options, repeat))
            print(f"  repeat {repeat + 1}, {contender.name}: {capacities[contender.name][-1]:.0f}/s", flush=True)
    return quiet, capacities


def capacity(asker: Ask, order: dict[str, Any], options: argparse.Namespace, seed: int) -> float:
    """The highest rate that was seen to meet the objective, with one 5 % above it that was seen to miss it."""
    saturated = asker(**order, mode="closed", concurrency=16, seconds=3.0, seed=seed)
    rate = 0.8 * len(saturated["latencies_ms"]) / saturated["seconds"]
    met, missed = 0.0, float("inf")
    while missed / max(met, 1e-9) > PRECISION:
        if meets(asker, order, rate, options, seed):
            met = rate
        else:
            missed = rate
        if missed == float("inf"):
            rate = 1.2 * met
        elif met == 0.0:
            rate = 0.7 * missed
        else:
            rate = (met * missed) ** 0.5
        seed += 1000
        if rate < 1:
            return 0.0
    return met


def meets(asker: Ask, order: dict[str, Any], rate: float, options: argparse.Namespace, seed: int) -> bool:
    answer = asker(**order, mode="open", rate=rate, warmup=1.5, seconds=options.seconds, seed=seed)
    latencies = answer["latencies_ms"]
    return bool(latencies and answer["errors"] == 0 and np.percentile(latencies, 99) <= options.slo_ms)


def show_work(
    contenders: list[Contender],
    missing: dict[str, str],
    agreement: dict[str, float],
    work_ms: dict[str, list[float]],
    watch: Watch,
) -> None:
    cores = len(os.sched_getaffinity(0))
    print(f"\n{cores} cores; 16 callers, one text a request; {watch}; {time.strftime('%Y-%m-%d')}\n")
    print("| server | versions | CPU ms a request | on all cores | compressed | dense | same label as dense |")
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: |")
    middle = {name: float(np.median(values)) for name, values in work_ms.items()}
    for contender in contenders:
        name, mine = contender.name, middle[contender.name]
        versions = ", ".join(f"{package} {version}" for package, version in contender.versions.items())
        print(
            f"| {name} | {versions} | {mine:.2f} ({min(work_ms[name]):.2f} to {max(work_ms[name]):.2f}) | "
            f"{1000 * cores / mine:,.0f}/s | {mine / middle[COMPRESSED]:.1f}× | {mine / middle[DENSE]:.1f}× | "
            f"{agreement[name]:.0%} |"
        )
    for name, reason in missing.items():
        print(f"| {name} | {reason} | | | | | |")


def show_capacities(
    contenders: list[Contender],
    quiet: dict[str, list[float]],
    capacities: dict[str, list[float]],
    options: argparse.Namespace,
    watch: Watch,
) -> None:
    print(
        f"\n{len(os.sched_getaffinity(0))} cores shared by client and server; p99 within {options.slo_ms:g} ms; "
        f"{options.repeats} repeats, interleaved, probes of {options.seconds:g} s; {watch}\n"
    )
    print(f"| server | p50, p99 ms at {QUIET_RATE:g}/s | capacity, requests/s | compressed | dense |")
    print("| --- | ---: | ---: | ---: | ---: |")
    middle = {name: float(np.median(values)) for name, values in capacities.items()}
    for contender in contenders:
        name = contender.name
        p50, p99 = np.percentile(quiet[name], [50, 99])
        ratios = [f"{middle[ours] / middle[name]:.1f}×" if middle[name] else "∞" for ours in (COMPRESSED, DENSE)]
        span = f"{min(capacities[name]):,.0f} to {max(capacities[name]):,.0f}"
        print(f"| {name} | {p50:.1f}, {p99:.1f} | {middle[name]:,.0f} ({span}) | {ratios[0]} | {ratios[1]} |")


if __name__ == "__main__":
    main()
