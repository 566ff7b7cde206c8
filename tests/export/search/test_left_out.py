"""What can't be made is left out of a search, which goes on with the others."""

import shutil
from pathlib import Path

import pytest
from safetensors.numpy import load_file, save_file

import export
from export.search import plans
from slipway.artifacts import Artifact, write_artifact
from slipway.errors import ExportError
from slipway.recipe import Export

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("hurried")]


def test_a_model_that_cannot_be_cut_so_deep_is_quantized_or_cut_less_deep(
    tiny_checkpoint: Artifact,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(plans, "_QUICK", (plans.Cut("c0", 0.001, 1.0, 1.0),))
    section = Export(effort="quick", budget=50.0, min_agreement=0.0, engines=["onnxruntime"])
    bundle = export.export(tiny_checkpoint.path, tmp_path_factory.mktemp("left-out") / "bundle", section)
    assert {row["structure"] for row in bundle.json("frontier.json")} == {"dense", "c40"}
    assert "c0 is left out: a compute budget of 0.001 can't be met" in capsys.readouterr().err


def test_a_variant_whose_answers_are_not_finite_is_left_out(
    tiny_checkpoint: Artifact, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest, source = tiny_checkpoint.manifest, tmp_path / "checkpoint"
    with write_artifact(source, "checkpoint", name=manifest.name, inputs="other", recipe=manifest.recipe) as draft:
        shutil.copytree(tiny_checkpoint.path, draft.path, dirs_exist_ok=True)
        (draft.path / "manifest.json").unlink()
        weights = load_file(draft.path / "model.safetensors")
        weights["bert.pooler.dense.bias"][:] = 20  # all that the head adds up is 1
        weights["classifier.weight"][1] = 3e38
        save_file(weights, draft.path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ExportError, match="no variant could be made of this checkpoint"):
        export.export(source, tmp_path / "bundle", Export(effort="quantize", engines=["onnxruntime"]))
    said = capsys.readouterr().err
    assert said.count("is left out: its answers to dev are not all finite") == 3
