"""A search goes on from what it has, and from nothing that isn't what it asks for."""

import shutil
from pathlib import Path

import pytest

import export
from slipway.artifacts import Artifact, read_artifact
from slipway.bundle import Bundle, Variant
from slipway.recipe import Export

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("hurried")]

SECTION = Export(effort="quantize", budget=50.0, min_agreement=0.0, engines=["onnxruntime"])


@pytest.fixture(scope="module")
def searched(tiny_checkpoint: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a bundle and the search beside it. Read only."""
    folder = tmp_path_factory.mktemp("searched")
    export.export(tiny_checkpoint.path, folder / "bundle", SECTION)
    return folder


@pytest.fixture
def begun(searched: Path, tmp_path: Path) -> Path:
    """The folder of a finished search, whose bundle is gone."""
    folder = tmp_path / "begun"
    shutil.copytree(searched, folder)
    shutil.rmtree(folder / "bundle")
    return folder


def frontier(bundle: Artifact) -> list[Variant]:
    return [Variant.model_validate(row) for row in bundle.json("frontier.json")]


def test_what_was_damaged_is_made_again(tiny_checkpoint: Artifact, begun: Path, searched: Path) -> None:
    (work,) = begun.glob(".bundle.search-*")
    cut_short(work / "variants" / "fp32@ort" / "cpu" / "model.onnx", 0.5)
    cut_short(work / "variants" / "int8-dynamic@ort" / "logits.npy", 0.5)
    cut_short(work / "variants" / "int8-static@ort" / "made.json", 0.0)
    cut_short(work / "structures" / "dense" / "structure.json", 0.0)
    again = export.export(tiny_checkpoint.path, begun / "bundle", SECTION)
    before = frontier(read_artifact(searched / "bundle"))
    accuracies = [{row.name: row.dev["accuracy"] for row in rows} for rows in (frontier(again), before)]
    assert accuracies[0] == accuracies[1]


def cut_short(file: Path, share: float) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * share)])


def test_finished_variants_run_with_the_threads_that_are_asked_for_now(tiny_checkpoint: Artifact, begun: Path) -> None:
    two = export.export(tiny_checkpoint.path, begun / "bundle", SECTION.model_copy(update={"threads": 2}))
    assert Bundle(two).target("cpu").threads == 2
