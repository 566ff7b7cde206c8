"""A bundle answers what its checkpoint would, with nothing but its own files."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

import export
from export.graph import export_onnx, fuse
from export.quantization import quantize_int8
from slipway.artifacts import Artifact, read_artifact
from slipway.bundle import Bundle, Target, Variant
from slipway.errors import ArtifactError, ExportError, GateError
from slipway.predictor import Predictor, open_session
from slipway.recipe import Export, load_recipe
from tests.tiny_base import BAD, GOOD, PLAIN

pytestmark = pytest.mark.integration

# All lengths up to and beyond what the model takes, in both languages, and what users type.
TEXTS = [
    *(" ".join((GOOD + PLAIN + BAD)[:count]) for count in range(1, 24)),
    " ".join(PLAIN * 40),
    "👍🏽 很好 ☕",
    "喜欢" * 500,
    "x" * 100_000,
]


@pytest.fixture(scope="module")
def plain(tiny_checkpoint: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_onnx(tiny_checkpoint.path, "sequence-classification", tmp_path_factory.mktemp("onnx"))


def torch_logits(checkpoint: Artifact, texts: list[str]) -> np.ndarray:
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(checkpoint.path, local_files_only=True).eval()
    tokenizer = AutoTokenizer.from_pretrained(checkpoint.path, local_files_only=True)
    with torch.inference_mode():
        rows = [
            model(**tokenizer(t, truncation=True, max_length=32, return_tensors="pt")).logits.numpy() for t in texts
        ]
    return np.concatenate(rows)


def predictor(bundle: Artifact, model: Path, *, batch_invariant: bool = True) -> Predictor:
    opened = Bundle(bundle)
    target = Target(model=str(model), precision="fp32", batch_invariant=batch_invariant)
    return Predictor(bundle.path, opened.spec, target)


def test_fp32_logits_equal_pytorchs_on_texts_of_all_lengths(
    plain: Path, exported_bundle: Artifact, tiny_checkpoint: Artifact
) -> None:
    found = predictor(exported_bundle, plain).logits(TEXTS)
    np.testing.assert_allclose(found, torch_logits(tiny_checkpoint, TEXTS), atol=1e-4)


def test_the_fused_graph_has_fewer_nodes_and_equal_logits(
    plain: Path, exported_bundle: Artifact, tiny_checkpoint: Artifact, tmp_path: Path
) -> None:
    import onnx

    fused = fuse(plain, "bert", 2, 32, tmp_path / "fused.onnx")
    assert len(onnx.load(fused).graph.node) < len(onnx.load(plain).graph.node) / 2
    found = predictor(exported_bundle, fused).logits(TEXTS)
    np.testing.assert_allclose(found, torch_logits(tiny_checkpoint, TEXTS), atol=1e-4)


def test_batch_and_sequence_are_dynamic(plain: Path) -> None:
    shapes = {value.name: value.shape for value in open_session(plain, 1).get_inputs()}
    assert all(isinstance(size, str) for shape in shapes.values() for size in shape)


def test_int8_answers_do_not_depend_on_their_neighbours(plain: Path, exported_bundle: Artifact, tmp_path: Path) -> None:
    quantized = predictor(exported_bundle, quantize_int8(plain, tmp_path / "int8.onnx"), batch_invariant=False)
    together = quantized.logits(TEXTS)
    alone = np.concatenate([quantized.logits([text]) for text in reversed(TEXTS)])[::-1]
    np.testing.assert_array_equal(together, alone)


def test_int8_is_about_a_quarter_of_the_bytes(plain: Path, tmp_path: Path) -> None:
    # The tiny model's graph weighs as much as its weights; only the weights shrink.
    import onnx

    def weights(model: Path) -> int:
        return sum(len(tensor.raw_data) for tensor in onnx.load(model).graph.initializer)

    assert weights(quantize_int8(plain, tmp_path / "int8.onnx")) < weights(plain) * 0.4


def test_the_bundle_gives_its_expected_answers(exported_bundle: Artifact) -> None:
    bundle = Bundle(exported_bundle)
    expected = pq.read_table(bundle.path / "expected.parquet")
    found = Predictor(bundle.path, bundle.spec, bundle.target("cpu")).predict(expected["text"].to_pylist())
    assert found.labels == expected["predicted"].to_pylist()
    np.testing.assert_array_equal(found.scores, expected["score"].to_numpy())
    checks = Predictor(bundle.path, bundle.spec, bundle.target("cpu")).predict([c.text for c in bundle.spec.checks])
    assert checks.labels == [check.label for check in bundle.spec.checks]


def test_every_variant_is_in_the_frontier_with_its_verdict(exported_bundle: Artifact) -> None:
    frontier = [Variant.model_validate(row) for row in exported_bundle.json("frontier.json")]
    assert [variant.name for variant in frontier] == ["pytorch", "fp32", "fused", "int8", "int8-fused"]
    assert sum(variant.chosen for variant in frontier) == 1
    assert all(variant.verdict for variant in frontier)
    assert all(variant.agreement == 1 for variant in frontier if variant.precision == "fp32")


def test_the_bundles_lineage_leads_to_its_checkpoint(exported_bundle: Artifact, tiny_checkpoint: Artifact) -> None:
    assert [parent.digest for parent in exported_bundle.manifest.parents] == [tiny_checkpoint.digest]


def test_a_gate_that_nothing_passes_writes_no_bundle(tiny_checkpoint: Artifact, tmp_path: Path) -> None:
    strict = Export(variants=["int8"], budget=0, min_agreement=1.0, test_texts=0)
    # Against the logits of another model nothing agrees.
    with_other_logits(tiny_checkpoint, tmp_path / "other")
    with pytest.raises(GateError):
        export.export(tmp_path / "other", tmp_path / "bundle", strict)
    assert [entry.name for entry in tmp_path.iterdir()] == ["other"]


def with_other_logits(checkpoint: Artifact, out: Path) -> None:
    """A copy of `checkpoint` whose stored dev logits are negated, as if its weights had been swapped."""
    import shutil

    from slipway.artifacts import write_artifact

    manifest = checkpoint.manifest
    with write_artifact(out, "checkpoint", name=manifest.name, inputs="other", recipe=manifest.recipe) as draft:
        shutil.copytree(checkpoint.path, draft.path, dirs_exist_ok=True)
        (draft.path / "manifest.json").unlink()
        file = draft.path / "logits" / "dev.npy"
        np.save(file, -np.load(file))


def test_a_bundle_can_do_without_texts(tiny_checkpoint: Artifact, tiny_recipe: Path, tmp_path: Path) -> None:
    section = load_recipe(tiny_recipe).export.model_copy(update={"test_texts": 0, "variants": ["int8"]})
    bundle = Bundle(export.export(tiny_checkpoint.path, tmp_path / "bundle", section))
    assert pq.read_table(bundle.path / "expected.parquet").num_rows == 0
    assert len(bundle.spec.checks) > 0


def test_an_altered_checkpoint_is_refused(tiny_checkpoint: Artifact, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "checkpoint"
    shutil.copytree(tiny_checkpoint.path, copy)
    with (copy / "model.safetensors").open("r+b") as stream:
        stream.seek(-1, 2)
        stream.write(b"\x7f")
    with pytest.raises(ArtifactError, match=r"model\.safetensors has changed"):
        export.export(copy, tmp_path / "bundle", Export())
    assert not (tmp_path / "bundle").exists()


def test_an_architecture_without_fusions_is_said(plain: Path, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="no graph fusions for mamba"):
        fuse(plain, "mamba", 2, 32, tmp_path / "fused.onnx")


def test_the_same_inputs_are_recognised(
    exported_bundle: Artifact, tiny_checkpoint: Artifact, tiny_recipe: Path
) -> None:
    section = load_recipe(tiny_recipe).export
    assert export.export_inputs(tiny_checkpoint, section) == read_artifact(exported_bundle.path).manifest.inputs
    other = section.model_copy(update={"budget": 4.0})
    assert export.export_inputs(tiny_checkpoint, other) != exported_bundle.manifest.inputs
