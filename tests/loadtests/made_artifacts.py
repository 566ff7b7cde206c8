"""Verdicts, capacities and comparisons as artifacts, from figures that a test chooses."""

from pathlib import Path
from typing import Any

import pyarrow as pa

from loadtests.bottleneck import bottleneck_of
from loadtests.slo import judge, latency_of
from loadtests.timeline import tell
from slipway.artifacts import Artifact, Kind, read_artifact, write_artifact
from slipway.capacity import CAPACITY, Answer, Capacity, Interval, Probe
from slipway.comparison import COMPARISON, Block, Comparison, Ratio, Side
from slipway.recipe import LoadTest
from slipway.timeline import TIMELINE, FaultRecord, Reading, Timeline, Usage, Work
from slipway.verdict import SAMPLES, VERDICT, Verdict
from tests.loadtests.synthetic import Queue, write


def made(folder: Path, kind: Kind, files: dict[str, Any], section: LoadTest) -> Artifact:
    with write_artifact(
        folder, kind, name="reviews", inputs="x", recipe={"loadtest": section.model_dump(mode="json")}
    ) as draft:
        for name, value in files.items():
            draft.write_json(name, value.model_dump(mode="json"))
    return read_artifact(folder)


def verdict_of(
    table: pa.Table, section: LoadTest, folder: Path, faults: list[FaultRecord] | None = None, *, server: bool = True
) -> tuple[Verdict, Timeline]:
    """As a run of `section` would judge `table`; with what a monitor might have seen of the server."""
    endpoint = {"address": "127.0.0.1:8080", "model": "reviews", "layout": "fused", "instances": 2, "threads": 1}
    folder.mkdir(parents=True, exist_ok=True)
    samples = write(table, folder / SAMPLES)
    seconds = range(-int(section.warmup_s), int(section.duration_s) + 1) if server else ()
    readings = [
        Reading(
            at_s=at,
            usage=Usage(cpu_cores=1.1 + 0.1 * (at % 3), cores=2, rss_mb=640 + 0.4 * at, generator_cores=0.3),
            work=Work(requests=80, executions=70, queue_ms=0.6 + 4 * (at % 7 == 0), compute_ms=6.4),
        )
        for at in seconds
    ]
    timeline = tell(
        samples,
        section.duration_s,
        section.warmup_s,
        readings=readings,
        usage=readings[-1].usage if readings else None,
        work=readings[-1].work if readings else None,
        faults=faults,
    )
    samples.unlink()
    return judge(table, section, endpoint, timeline.faults), timeline


def verdict_artifact(
    folder: Path, table: pa.Table, section: LoadTest, faults: list[FaultRecord] | None = None
) -> Artifact:
    verdict, timeline = verdict_of(table, section, folder.parent / "scratch", faults)
    return made(folder, "verdict", {VERDICT: verdict, TIMELINE: timeline}, section)


def probe(number: int, rate: float, answer: Answer, queue: Queue | None = None) -> Probe:
    """What a probe at `rate` finds on a real queue with 2 instances of 8 ms."""
    table = (queue or Queue()).simulate(rate, 10, seed=number)
    latency = latency_of(table["latency_ms"].to_numpy())
    busy = min(rate * 0.008, 2.0)
    return Probe(
        number=number,
        rate=rate,
        answer=answer,
        reason=f"{answer.capitalize()} at {rate:g} requests/s: p99 {latency.p99:.1f} ms.",
        seed=number,
        duration_s=10,
        requests=table.num_rows,
        achieved_rate=table.num_rows / 10,
        latency=latency,
        error_rate=0,
        dispatch_lag_p99_ms=0.6 if answer != "invalid" else 45,
        backlog_s_per_s=0,
        in_flight=rate * latency.mean / 1000,
        usage=Usage(cpu_cores=busy * 0.85, cores=2, rss_mb=700, generator_cores=min(rate * 0.001, 0.5)),
        work=Work(requests=1, executions=1, queue_ms=max(latency.mean - 8.2, 0.01), compute_ms=8.1),
    )


def capacity(at_least: float | None = None) -> Capacity:
    answers: list[tuple[float, Answer]] = [
        (20, "met"), (40, "met"), (80, "met"), (160, "met"), (320, "missed"), (320, "missed"), (640, "invalid"),
        (220, "met"), (240, "missed"), (230, "met"), (236, "met"), (236, "missed"), (232, "met"), (238, "missed"),
    ]  # fmt: skip
    probes = [probe(number, rate, answer) for number, (rate, answer) in enumerate(answers)]
    return Capacity(
        outcome="found",
        reason="235 requests/s meet the objective; with 90% confidence the limit is between 226 and 243 (14 probes).",
        interval=Interval(low=226, estimate=235, high=243, confidence=0.9),
        converged=True,
        bottleneck=bottleneck_of(probes, 8.4, limited_by_client=False),
        at_least=at_least,
        slo={"p99_ms": 50.0, "error_rate": 0.0},
        service_ms=8.1,
        service_from="triton",
        unloaded_ms=8.4,
        mean_latency_ms=14.0,
        in_flight=3.3,
        cpu_ms_per_request=6.9,
        memory_mb=700,
        probes=probes,
        seconds=212,
        arrivals="poisson",
        protocols=["grpc", "http"],
        endpoint={"address": "127.0.0.1:8080", "instances": 2},
        machine={"processor": "Some CPU", "cores": 2},
    )


def comparison(max_p99_ratio: float | None = None, outcome: str = "met") -> Comparison:
    blocks = []
    for number in range(16):
        pair, first = divmod(number, 2)
        side = "ab"[(first + pair) % 2]
        queue = Queue(service_ms=8.0 if side == "a" else 6.5)
        latency = latency_of(queue.simulate(120, 6, seed=number)["latency_ms"].to_numpy())
        blocks.append(
            Block.model_validate(
                {
                    "number": number,
                    "pair": pair,
                    "side": side,
                    "valid": number != 5,
                    "achieved_rate": 119.0,
                    "latency": latency.model_dump(),
                    "failures": {},
                }
            )
        )
    sides = [
        Side(name=name, latency=blocks[at].latency, achieved_rate=119.5, error_rate=0, endpoint={"address": name})
        for at, name in enumerate(("A (dense)", "B (int8)"))
    ]
    return Comparison.model_validate(
        {
            "outcome": outcome,
            "reason": "B (int8) is 1.31 times faster than A (dense) at the p99: ratio 0.76 (0.70 to 0.83, 8 pairs).",
            "a": sides[0].model_dump(),
            "b": sides[1].model_dump(),
            "ratios": [
                Ratio(figure="p50", ratio=0.80, low=0.79, high=0.82).model_dump(),
                Ratio(figure="p95", ratio=0.78, low=0.74, high=0.83).model_dump(),
                Ratio(figure="p99", ratio=0.76, low=0.70, high=0.83).model_dump(),
                Ratio(figure="mean", ratio=0.79, low=0.77, high=0.81).model_dump(),
                Ratio(figure="throughput", ratio=1.001, low=0.99, high=1.01).model_dump(),
            ],
            "confidence": 0.95,
            "pairs": 7,
            "max_p99_ratio": max_p99_ratio,
            "blocks": [block.model_dump() for block in blocks],
            "rate": 120,
            "arrivals": "poisson",
            "protocols": ["grpc"],
            "seed": 0,
            "texts": 800,
            "machine": {"processor": "Some CPU", "cores": 2},
        }
    )


def capacity_artifact(folder: Path, at_least: float | None = None) -> Artifact:
    return made(folder, "capacity", {CAPACITY: capacity(at_least)}, LoadTest())


def comparison_artifact(folder: Path, max_p99_ratio: float | None = None, outcome: str = "met") -> Artifact:
    return made(folder, "comparison", {COMPARISON: comparison(max_p99_ratio, outcome)}, LoadTest())
