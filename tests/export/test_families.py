"""Every supported family answers on both engines what it answers in PyTorch, whatever the batch and the length."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export.graph import FAMILIES, export_onnx, input_names
from slipway.errors import ExportError
from tests import tiny_families
from tests.tiny_families import (
    MAX_TOKENS,
    onnxruntime_run,
    openvino_run,
    random_batch,
    text_batch,
    tiny_model,
    torch_logits,
)

Exported = Callable[[str], tuple[Any, Path]]

pytestmark = pytest.mark.integration

TASK = "sequence-classification"
SHAPES = [(1, 1), (1, 2), (3, 7), (8, 64), (3, 128), (2, MAX_TOKENS)]
TEXTS = [
    "",
    "a",
    "Good.",
    "👍🏽",
    "这部电影很好看，我很喜欢。",
    "Nicht schlecht, aber auch nicht gut — naïve Erwartungen…",
    "The report is due on Friday. " * 4,
    "很好" * 200,
]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """The tiny model of a name and its ONNX file."""

    @functools.cache
    def export(name: str) -> tuple[Any, Path]:
        model = tiny_model(name)
        return model, export_onnx(model, TASK, tmp_path_factory.mktemp("onnx") / "model.onnx")

    return export


@pytest.mark.parametrize("name", tiny_families.FAMILIES)
def test_both_engines_answer_what_pytorch_answers(name: str, exported: Exported) -> None:
    model, file = exported(name)
    inputs = input_names(file)
    batches = [random_batch(model, *shape, inputs) for shape in SHAPES]
    batches += [text_batch(model, [text], inputs) for text in TEXTS] + [text_batch(model, TEXTS, inputs)]
    for run in (onnxruntime_run(file), openvino_run(file)):
        for batch in batches:
            np.testing.assert_allclose(run(batch), torch_logits(model, batch), atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", ["bert", "roberta", "deberta-v3", "modernbert", "gpt2", "llama"])
def test_padding_changes_no_answer(name: str, exported: Exported) -> None:
    model, file = exported(name)
    inputs = input_names(file)
    for run in (onnxruntime_run(file), openvino_run(file)):
        alone = np.concatenate([run(text_batch(model, [text], inputs)) for text in TEXTS])
        np.testing.assert_allclose(run(text_batch(model, TEXTS, inputs)), alone, atol=1e-4, rtol=0)
        assert np.ptp(alone, axis=0).max() > 0.1  # the answers depend on the text


def test_every_supported_family_is_tested() -> None:
    assert {family for family, _ in tiny_families.FAMILIES.values()} == set(FAMILIES)


def test_inputs_and_output_have_the_names_and_axes_of_the_contract(exported: Exported) -> None:
    import onnx

    graph = onnx.load(exported("bert")[1]).graph
    axes = {
        value.name: [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]
        for value in (*graph.input, *graph.output)
    }
    tokens = ["batch", "sequence"]
    assert axes == {"input_ids": tokens, "attention_mask": tokens, "token_type_ids": tokens, "logits": ["batch", 3]}


@pytest.mark.parametrize("name", tiny_families.FAMILIES)
def test_only_standard_operators_are_used(name: str, exported: Exported) -> None:
    import onnx

    graph = onnx.load(exported(name)[1]).graph
    assert {node.domain for node in graph.node} <= {"", "ai.onnx"}
    assert "If" not in {node.op_type for node in graph.node}


def test_the_second_token_type_is_not_lost(exported: Exported) -> None:
    model, file = exported("bert")
    batch = random_batch(model, 3, 9, input_names(file))
    batch["token_type_ids"][:, 4:] = 1
    np.testing.assert_allclose(onnxruntime_run(file)(batch), torch_logits(model, batch), atol=1e-4, rtol=0)


def test_deberta_v3_buckets_far_positions_alike_on_both_engines(tmp_path: Path) -> None:
    model = tiny_model("deberta-v3", max_position_embeddings=512, position_buckets=256, num_hidden_layers=1)
    file = export_onnx(model, TASK, tmp_path / "model.onnx")
    batch = random_batch(model, 2, 512, input_names(file))
    for run in (onnxruntime_run(file), openvino_run(file)):
        np.testing.assert_allclose(run(batch), torch_logits(model, batch), atol=1e-4, rtol=0)


def test_layers_of_different_sizes_are_exported_as_they_are(tmp_path: Path) -> None:
    from torch import nn

    model = tiny_model("bert")
    layer = model.bert.encoder.layer[1]
    attention = layer.attention.self
    attention.num_attention_heads, attention.all_head_size = 3, 24
    for part in ("query", "key", "value"):
        setattr(attention, part, nn.Linear(32, 24))
    layer.attention.output.dense = nn.Linear(24, 32)
    layer.intermediate.dense, layer.output.dense = nn.Linear(32, 10), nn.Linear(10, 32)
    file = export_onnx(model.eval(), TASK, tmp_path / "model.onnx")
    batch = random_batch(model, 3, 20, input_names(file))
    for run in (onnxruntime_run(file), openvino_run(file)):
        np.testing.assert_allclose(run(batch), torch_logits(model, batch), atol=1e-4, rtol=0)


def test_the_model_is_left_as_it_was(tmp_path: Path) -> None:
    model = tiny_model("llama")
    model.set_attn_implementation("sdpa")
    model.train()
    before = dict(model.config.to_dict())
    export_onnx(model, TASK, tmp_path / "model.onnx")
    assert model.config.to_dict() == before
    assert model.config._attn_implementation == "sdpa"
    assert model.training


def test_an_unsupported_family_is_named_with_those_that_are_supported(tmp_path: Path) -> None:
    from transformers import FunnelConfig, FunnelForSequenceClassification

    sizes: dict[str, Any] = {"block_sizes": [1], "num_decoder_layers": 1, "d_model": 16, "n_head": 2, "d_head": 8}
    model = FunnelForSequenceClassification(FunnelConfig(vocab_size=20, d_inner=16, **sizes))
    with pytest.raises(ExportError, match=r"family 'funnel'.*supported are: albert, bert, .*xlm-roberta"):
        export_onnx(model, TASK, tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_attention_that_cannot_be_made_eager_is_refused(tmp_path: Path) -> None:
    from transformers import BertForSequenceClassification

    model = BertForSequenceClassification._from_config(tiny_model("bert").config, attn_implementation="sdpa")
    with pytest.raises(ExportError, match='load it with attn_implementation="eager"'):
        export_onnx(model, TASK, tmp_path / "model.onnx")


def test_a_decoder_without_a_padding_token_is_refused(tmp_path: Path) -> None:
    model = tiny_model("gpt2")
    model.config.pad_token_id = None
    with pytest.raises(ExportError, match="no padding token"):
        export_onnx(model, TASK, tmp_path / "model.onnx")


def test_a_model_beyond_one_file_is_refused_before_it_is_traced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("export.graph._MOST_BYTES", 1000)
    with pytest.raises(ExportError, match="one ONNX file holds 2 GiB"):
        export_onnx(tiny_model("bert"), TASK, tmp_path / "model.onnx")


def test_a_failing_exporter_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: object) -> None:
        raise RuntimeError("no such operator\nand a long trace")

    monkeypatch.setattr("optimum.exporters.onnx.convert.export_pytorch", broken)
    with pytest.raises(ExportError, match=r"^the bert model can't be exported to ONNX: no such operator$"):
        export_onnx(tiny_model("bert"), TASK, tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []
