"""A student that can't be made is left out of a search, which goes on with the others."""

import pytest

import export
from export.search import plans
from slipway.artifacts import Artifact
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
