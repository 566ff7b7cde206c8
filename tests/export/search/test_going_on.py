"""A search goes on from what it has, and from nothing that isn't what it asks for."""

import shutil
from pathlib import Path

import pytest

import export
from export.measurement.memory import Memory
from export.search import speed
from slipway.artifacts import Artifact
from slipway.bundle import Bundle, Variant
from slipway.recipe import Export

pytestmark = pytest.mark.integration

SECTION = Export(effort="quantize", budget=50.0, min_agreement=0.0, engines=["onnxruntime"])


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take less time to measure speed and memory."""
    monkeypatch.setattr(speed, "_SECONDS", dict.fromkeys(speed._SECONDS, 1.0))
    for name in ("session_memory", "torch_memory"):
        monkeypatch.setattr(speed, name, lambda *_, **__: Memory(resident_mb=1.0, peak_mb=2.0))


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


def test_finished_variants_run_with_the_threads_that_are_asked_for_now(tiny_checkpoint: Artifact, begun: Path) -> None:
    two = export.export(tiny_checkpoint.path, begun / "bundle", SECTION.model_copy(update={"threads": 2}))
    assert Bundle(two).target("cpu").threads == 2
