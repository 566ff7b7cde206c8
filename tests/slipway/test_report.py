"""The report, on fabricated artifacts that are written with the real artifact API."""

import io
import itertools
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.transforms import Bbox
from rich.console import Console

from slipway.artifacts import Artifact, read_artifact, write_artifact
from slipway.bundle import Variant
from slipway.cli import _print_frontier
from slipway.errors import ArtifactError
from slipway.report import collect, gather, summary_table, write_report
from slipway.report.evidence import DataSummary, Quality
from slipway.report.plots import variants
from slipway.report.plots.training import exponential_average
from slipway.report.plots.variants import pareto_frontier
from slipway.tasks.metrics import classification_metrics
from tests.slipway.fabricated import THREE, make_bundle, make_checkpoint, make_run, make_verdict

pytestmark = pytest.mark.unit


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


def test_the_name_of_the_served_variant_is_never_cut(tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path / "checkpoint")
    make_bundle(tmp_path / "bundle", checkpoint, chosen={"name": "c25v-int8-dynamic-e4@ort"})
    text = printed(summary_table(collect(tmp_path)))
    assert re.search(r"dense +c25v-int8-dynamic-\s+e4@ort", text)
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= 80


def test_a_larger_and_slower_variant_is_said_to_be_so(tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path / "checkpoint")
    made = make_bundle(tmp_path / "bundle", checkpoint, chosen={"bytes": 100_000, "speedup": 0.8})
    assert re.search(r"larger by +1\.1x", printed(summary_table(collect(tmp_path))))
    page = Outline(page_of(tmp_path, checkpoint, made, None)).text
    assert "1.2× slower than PyTorch, 1.1× larger" in page
    assert "1.1× larger than dense, 0.09 MB" in page
    assert not re.search("0\\.[0-9]× (smaller|faster)|Faster than PyTorch", page)


def test_a_variant_of_the_same_size_is_said_to_be_so(tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path / "checkpoint")
    made = make_bundle(tmp_path / "bundle", checkpoint, chosen={"bytes": 91_500})
    assert re.search("smaller by +nothing", printed(summary_table(collect(tmp_path))))
    assert "as large as dense, 0.09 MB" in Outline(page_of(tmp_path, checkpoint, made, None)).text


def test_a_speed_that_was_not_measured_is_not_reported(tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path / "checkpoint")
    made = make_bundle(tmp_path / "bundle", checkpoint, chosen={"latency_ms": {}, "speedup": 1.0})
    assert "than PyTorch" not in Outline(page_of(tmp_path, checkpoint, made, None)).text


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_no_terminal_is_so_narrow_that_the_frontier_is_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], columns: int
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", str(columns))
    _print_frontier(make_bundle(tmp_path / "bundle", None, chosen={"name": "c25v-int8-dynamic-e4@ort"}))
    shown = capsys.readouterr().out
    assert "\x1b[" in shown, "it was taken for a terminal"
    assert "…" not in shown
    assert "c25v-int8-dynamic-e4@ort" in shown


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


def variant(name: str, p50: float, metric: float, *, chosen: bool = False) -> Variant:
    return Variant(
        name=name,
        precision="int8",
        engine="onnxruntime",
        bytes=23_000_000,
        metric="macro_f1",
        dev={"macro_f1": metric},
        loss_points=0.0,
        agreement=0.99,
        max_logit_difference=0.1,
        latency_ms={"p50": p50},
        speedup=2.0,
        passed=True,
        chosen=chosen,
        verdict="",
    )


def test_names_of_variants_cover_neither_the_legend_nor_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """All within a hair's breadth of the best metric, far above the floor: as on a machine without VNNI."""
    rows = [
        variant("pytorch", 19.8, 0.7157),
        variant("fp32@ort", 10.8, 0.7157),
        variant("fp32@ov", 10.6, 0.7157),
        variant("int8-dynamic@ort", 6.3, 0.7170, chosen=True),
        variant("int8-static@ort", 6.8, 0.7173),
        variant("int8-static@ov", 12.2, 0.7165),
    ]
    found: list[Bbox] = []

    def measure(figure: Any, *_: Any) -> str:
        figure.canvas.draw()
        (axes,) = figure.axes
        names = [each for each in axes.texts if each.get_text() in {row.name for row in rows}]
        found.extend(each.get_window_extent() for each in (*names, axes.get_legend()))
        return ""

    monkeypatch.setattr(variants, "to_svg", measure)
    variants.variants_plot(rows, budget=1.0)
    assert len(found) == len(rows) + 1
    assert not [pair for pair in itertools.combinations(found, 2) if pair[0].overlaps(pair[1])]


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
