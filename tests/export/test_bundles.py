"""A bundle answers what its checkpoint would, with nothing but its own files, and says everything that was tried."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import export
from slipway.artifacts import Artifact, lineage, read_artifact
from slipway.bundle import Bundle, Variant
from slipway.errors import ArtifactError, ExportError, GateError
from slipway.predictor import Predictor
from slipway.recipe import Export, load_recipe
from tests.tiny_base import BAD, GOOD, PLAIN

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("hurried")]

QUICK = Export(effort="quick", budget=20.0, min_agreement=0.5, vocabulary="prune", test_texts=20)

# All lengths up to and beyond what the model takes, in both languages, and what users type.
TEXTS = [
    *(" ".join((GOOD + PLAIN + BAD)[:count]) for count in range(1, 24)),
    " ".join(PLAIN * 40),
    "👍🏽 很好 ☕",
    "喜欢" * 500,
    "x" * 100_000,
]


@pytest.fixture(scope="module")
def searched(tiny_checkpoint: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """The bundle of a quick search, measured without hurry, with its search and student beside it. Read only."""
    out = tmp_path_factory.mktemp("searched") / "bundle"
    return export.export(tiny_checkpoint.path, out, QUICK)


def frontier(bundle: Artifact) -> list[Variant]:
    return [Variant.model_validate(row) for row in bundle.json("frontier.json")]


def test_the_bundle_gives_its_expected_answers(exported_bundle: Artifact) -> None:
    bundle = Bundle(exported_bundle)
    expected = pq.read_table(bundle.path / "expected.parquet")
    predictor = Predictor(bundle.path, bundle.spec, bundle.target("cpu"))
    found = predictor.predict(expected["text"].to_pylist())
    assert found.labels == expected["predicted"].to_pylist()
    np.testing.assert_allclose(found.scores, expected["score"].to_numpy(), atol=1e-6)
    checks = predictor.predict([check.text for check in bundle.spec.checks])
    assert checks.labels == [check.label for check in bundle.spec.checks]


def test_scores_are_calibrated_with_the_temperature_that_the_bundle_carries(exported_bundle: Artifact) -> None:
    bundle = Bundle(exported_bundle)
    (chosen,) = [variant for variant in frontier(exported_bundle) if variant.chosen]
    assert bundle.spec.temperature == chosen.temperature != 1.0
    predictor = Predictor(bundle.path, bundle.spec, bundle.target("cpu"))
    answer = predictor.predict(["great film"])
    scaled = np.exp(answer.logits[0] / bundle.spec.temperature)
    assert answer.scores[0] == pytest.approx((scaled / scaled.sum()).max(), abs=1e-5)


def test_every_variant_is_in_the_frontier_with_its_figures_and_its_verdict(searched: Artifact) -> None:
    rows = frontier(searched)
    assert rows[0].name == "pytorch"
    assert {row.structure for row in rows} == {"dense", "vocabulary", "c20v"}
    assert sum(row.chosen for row in rows) == 1
    for row in rows[1:]:
        assert row.verdict
        assert row.loss_interval is not None
        assert row.loss_interval[0] <= row.loss_points <= row.loss_interval[1]
        assert set(row.speeds) >= {"1x32", "8x32", "32x32"}
        assert row.memory_mb is not None
        assert row.roofline_share is not None
        assert row.classes.keys() == {"good", "bad"}
        assert row.how["quantizer"]


def test_the_frontier_is_drawn_as_a_picture_of_its_own(searched: Artifact) -> None:
    from xml.etree import ElementTree as ET

    root = ET.parse(searched.path / "frontier.svg").getroot()  # noqa: S314  # it is our own
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert "the chosen one is a star" in root.attrib["aria-label"]
    assert len(list(root.iter())) > 50


def test_fp32_variants_are_exact(searched: Artifact) -> None:
    exact = [row for row in frontier(searched) if row.precision == "fp32" and row.name != "pytorch"]
    assert {row.engine for row in exact} == {"onnxruntime", "openvino"}
    assert all(row.max_logit_difference < 1e-4 for row in exact)


def test_a_student_is_smaller_and_says_how_it_was_made(searched: Artifact) -> None:
    sizes = {row.structure: row.bytes for row in frontier(searched) if "int8-static" in row.name}
    assert sizes["c20v"] < sizes["vocabulary"] < sizes["dense"]
    (how,) = [row.how["structure"] for row in frontier(searched) if row.name == "c20v-int8-dynamic-e4@ort"]
    assert how["from"] == "vocabulary"
    assert how["cut"]["compute"] == 0.2
    assert how["pruning"]["layers"]
    assert how["distillation"]["temperature"] == 2.0


def test_a_chosen_student_is_a_checkpoint_of_its_own_between_bundle_and_dense_checkpoint(
    searched: Artifact, tiny_checkpoint: Artifact, tmp_path: Path
) -> None:
    (chosen,) = [row for row in frontier(searched) if row.chosen]
    assert chosen.structure != "dense", "the tiny data is easy: the smallest wins"
    parents = [parent.kind for _, parent, _ in lineage(searched)]
    assert parents == ["checkpoint", "checkpoint", "checkpoint"]  # dense; student, made from dense
    student = read_artifact(searched.path.with_name("bundle-checkpoint"), "checkpoint")
    assert [parent.digest for parent in student.manifest.parents] == [tiny_checkpoint.digest]
    again = export.export(student.path, tmp_path / "again", Export(effort="quantize", budget=50.0, min_agreement=0.0))
    assert Bundle(again).spec.labels == Bundle(searched).spec.labels


def test_a_search_goes_on_from_what_it_has(
    searched: Artifact, tiny_checkpoint: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from export.search import students

    for entry in searched.path.parent.iterdir():
        if entry.name.startswith(".bundle.search-"):
            shutil.copytree(entry, tmp_path / entry.name)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a finished student was trained again")

    monkeypatch.setattr(students, "distil", refuse)
    limited = QUICK.model_copy(update={"budget": None, "max_size_mb": 100.0})
    bundle = export.export(tiny_checkpoint.path, tmp_path / "bundle", limited)
    assert {row.name for row in frontier(bundle)} >= {row.name for row in frontier(searched)}


def test_where_a_student_loses_too_much_one_that_is_cut_less_deep_is_tried(
    tiny_checkpoint: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from export.search import students

    distil = students.distil

    def learn_only_when_larger(*arguments: Any, work: Path, **options: Any) -> Any:
        curve = distil(*arguments, work=work, **options)
        if work.name.startswith("c20"):
            with torch.no_grad():
                arguments[0].classifier.weight.zero_()  # it calls every text the same
        return curve

    monkeypatch.setattr(students, "distil", learn_only_when_larger)
    bundle = export.export(tiny_checkpoint.path, tmp_path / "bundle", QUICK.model_copy(update={"budget": 1.0}))
    rows = frontier(bundle)
    assert {row.structure for row in rows} == {"dense", "vocabulary", "c20v", "c40v"}
    assert not any(row.passed for row in rows if row.structure == "c20v")
    (larger,) = [row.how["structure"] for row in rows if row.name == "c40v-int8-dynamic-e4@ort"]
    assert larger["from"] == "vocabulary"


def test_a_table_that_changes_makes_another_bundle_and_one_that_moves_does_not(
    tiny_checkpoint: Artifact, tmp_path: Path
) -> None:
    table = tmp_path / "more.parquet"

    def inputs() -> str:
        return export.export_inputs(tiny_checkpoint, QUICK.model_copy(update={"unlabelled": f"file:{table}"}))

    pq.write_table(pa.table({"text": ["a superb charger"]}), table)
    first = inputs()
    table = table.rename(tmp_path / "moved.parquet")
    assert inputs() == first
    pq.write_table(pa.table({"text": ["an awful charger"]}), table)
    assert inputs() != first


def test_unlabelled_texts_are_learned_from_but_those_of_dev_and_test_are_not(
    tiny_checkpoint: Artifact, tmp_path: Path
) -> None:
    dev = pq.read_table(tiny_checkpoint.path / "data" / "dev.parquet")["text"].to_pylist()
    more = ["a superb charger", "the awful box", "很差 的 电影"]
    pq.write_table(pa.table({"body": [*dev, *more, None, " "]}), tmp_path / "more.parquet")
    section = QUICK.model_copy(
        update={
            "unlabelled": f"file:{tmp_path / 'more.parquet'}",
            "unlabelled_text": "body",
            "vocabulary": "keep",
        }
    )
    bundle = export.export(tiny_checkpoint.path, tmp_path / "bundle", section)
    (how,) = [row.how["structure"] for row in frontier(bundle) if row.name == "c20-int8-dynamic-e4@ort"]
    assert how["unlabelled"] == len(more)


def test_a_time_budget_leaves_out_what_would_begin_too_late(tiny_checkpoint: Artifact, tmp_path: Path) -> None:
    section = QUICK.model_copy(update={"time_budget_s": 0.001})
    bundle = export.export(tiny_checkpoint.path, tmp_path / "bundle", section)
    assert {row.structure for row in frontier(bundle)} == {"dense"}


def test_several_variants_can_be_made_at_a_time(
    exported_bundle: Artifact, tiny_checkpoint: Artifact, tiny_recipe: Path, tmp_path: Path
) -> None:
    section = load_recipe(tiny_recipe).export.model_copy(update={"jobs": 2})
    bundle = export.export(tiny_checkpoint.path, tmp_path / "bundle", section)
    one, two = ({row.name: row.dev for row in frontier(each)} for each in (exported_bundle, bundle))
    assert one == two


def test_a_gpu_bundle_holds_fp16_and_says_that_its_speed_was_not_measured(
    tiny_checkpoint: Artifact, tmp_path: Path
) -> None:
    section = Export(target="gpu", effort="quantize", budget=5.0, min_agreement=0.5)
    bundle = export.export(tiny_checkpoint.path, tmp_path / "bundle", section)
    assert Bundle(bundle).target("gpu").precision == "fp16"
    assert "no GPU" in bundle.manifest.metrics["conditions"]["speed"]
    (int8,) = [row for row in frontier(bundle) if row.precision == "int8"]
    assert "TensorRT" in int8.verdict
    with pytest.raises(ArtifactError, match="no model for cpu"):
        Bundle(bundle).target("cpu")


def test_a_gate_that_nothing_passes_writes_no_bundle(tiny_checkpoint: Artifact, tmp_path: Path) -> None:
    section = Export(effort="quantize", max_size_mb=0.001, test_texts=0)
    with pytest.raises(GateError, match="Nearest is"):
        export.export(tiny_checkpoint.path, tmp_path / "bundle", section)
    assert not (tmp_path / "bundle").exists()
    assert not (tmp_path / "bundle-checkpoint").exists()


def test_a_bundle_can_do_without_texts(tiny_checkpoint: Artifact, tiny_recipe: Path, tmp_path: Path) -> None:
    section = load_recipe(tiny_recipe).export.model_copy(update={"test_texts": 0, "engines": ["onnxruntime"]})
    bundle = Bundle(export.export(tiny_checkpoint.path, tmp_path / "bundle", section))
    assert pq.read_table(bundle.path / "expected.parquet").num_rows == 0
    assert len(bundle.spec.checks) > 0


def test_the_same_inputs_are_recognised(
    exported_bundle: Artifact, tiny_checkpoint: Artifact, tiny_recipe: Path
) -> None:
    section = load_recipe(tiny_recipe).export
    assert export.export_inputs(tiny_checkpoint, section) == read_artifact(exported_bundle.path).manifest.inputs
    other = section.model_copy(update={"budget": 4.0})
    assert export.export_inputs(tiny_checkpoint, other) != exported_bundle.manifest.inputs


# What can't be exported


@pytest.mark.parametrize(("checkpoint", "out"), [("reviews-checkpoint", "reviews"), ("model", "model/bundle")])
def test_a_bundle_is_not_written_over_the_checkpoint_that_it_is_made_from(
    checkpoint: str, out: str, tiny_checkpoint: Artifact, tmp_path: Path
) -> None:
    source = tmp_path / checkpoint
    shutil.copytree(tiny_checkpoint.path, source)
    with pytest.raises(ExportError, match=r"in the checkpoint's own place.*--out"):
        export.export(source, tmp_path / out, Export(effort="quick"))
    assert [each.name for each in tmp_path.iterdir()] == [checkpoint]
    assert read_artifact(source).digest == tiny_checkpoint.digest


def test_a_folder_that_no_export_wrote_is_in_the_way_of_a_student_before_one_is_made(
    tiny_checkpoint: Artifact, tmp_path: Path
) -> None:
    shutil.copytree(tiny_checkpoint.path, tmp_path / "bundle-checkpoint")
    with pytest.raises(ExportError, match=r"bundle-checkpoint .* no export wrote it"):
        export.export(tiny_checkpoint.path, tmp_path / "bundle", Export(effort="quick"))
    assert [each.name for each in tmp_path.iterdir()] == ["bundle-checkpoint"]


def test_the_student_of_an_earlier_bundle_stays_which_is_said(
    searched: Artifact, tiny_checkpoint: Artifact, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("bundle", "bundle-checkpoint"):
        shutil.copytree(searched.path.with_name(name), tmp_path / name)
    section = Export(effort="quantize", budget=20.0, engines=["onnxruntime"])
    export.export(tiny_checkpoint.path, tmp_path / "bundle", section)
    read_artifact(tmp_path / "bundle-checkpoint", "checkpoint", verify=True)
    assert "bundle-checkpoint is the student of an earlier bundle, and stays" in capsys.readouterr().err


def test_a_shape_that_the_texts_never_have_is_refused(tiny_checkpoint: Artifact, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="texts are cut at 32 tokens"):
        export.export(tiny_checkpoint.path, tmp_path / "bundle", Export(at="1x128", max_latency_ms=5.0))
    assert not list(tmp_path.iterdir())
