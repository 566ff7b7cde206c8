"""A rewritten graph gives the logits of the graph as exported, to 1e-5, on both engines, whatever batch and length."""

import functools
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export.graph import export_onnx, input_names
from export.rewrites import REWRITES, rewrite
from export.rewrites.dimensions import solve_reshape
from export.rewrites.onnx_graph import OnnxGraph
from export.rewrites.token_types import sends_only_zeros
from slipway.errors import ExportError
from tests import tiny_families
from tests.tiny_families import MAX_TOKENS, onnxruntime_run, openvino_run, random_batch, tiny_model, torch_logits

pytestmark = pytest.mark.integration

SHAPES = [(1, 1), (1, 2), (2, 3), (3, 7), (8, 33), (5, 64), (2, 128), (2, MAX_TOKENS)]
ASSUMING = [name for name, chosen in REWRITES.items() if chosen.assumes]

Exported = Callable[[str], tuple[Any, Path]]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """The tiny model of a name and its ONNX file."""

    @functools.cache
    def export(name: str) -> tuple[Any, Path]:
        model = tiny_model(name)
        return model, export_onnx(model, "sequence-classification", tmp_path_factory.mktemp("onnx") / "model.onnx")

    return export


def assert_equal_logits(model: Any, plain: Path, rewritten: Path) -> None:
    """On ONNX Runtime with the plain file as the measure, and on OpenVINO with OpenVINO's own."""
    for open_file in (onnxruntime_run, openvino_run):
        before, after = open_file(plain), open_file(rewritten)
        for number, shape in enumerate(SHAPES):
            batch = random_batch(model, *shape, input_names(plain), seed=number)
            kept = {name: batch[name] for name in input_names(rewritten)}
            np.testing.assert_allclose(after(kept), before(batch), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", tiny_families.FAMILIES)
def test_all_rewrites_together_change_no_logit(name: str, exported: Exported, tmp_path: Path) -> None:
    model, plain = exported(name)
    out = tmp_path / "out.onnx"
    places = rewrite(plain, out, assuming=ASSUMING)
    assert places["constants"] > 0
    assert_equal_logits(model, plain, out)


@pytest.mark.parametrize("chosen", REWRITES)
@pytest.mark.parametrize("name", ["bert", "roberta", "deberta-v3", "llama"])
def test_each_rewrite_alone_changes_no_logit(chosen: str, name: str, exported: Exported, tmp_path: Path) -> None:
    model, plain = exported(name)
    out = tmp_path / "out.onnx"
    rewrite(plain, out, only=[chosen], assuming=[chosen])
    assert_equal_logits(model, plain, out)


@pytest.mark.parametrize("positions", [16, 20, 64])
def test_a_small_position_table_is_not_taken_for_a_shape(positions: int, tmp_path: Path) -> None:
    model = tiny_model("bert", max_position_embeddings=positions)
    plain = export_onnx(model, "sequence-classification", tmp_path / "model.onnx")
    rewrite(plain, tmp_path / "out.onnx", assuming=ASSUMING)
    for tokens in (1, 2, positions):
        batch = random_batch(model, 2, tokens, input_names(tmp_path / "out.onnx"))
        found = onnxruntime_run(tmp_path / "out.onnx")(batch)
        np.testing.assert_allclose(found, torch_logits(model, batch), atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", ["bert", "distilbert", "roberta", "albert", "electra", "mpnet"])
def test_only_the_input_of_the_last_layer_is_sliced(name: str, exported: Exported, tmp_path: Path) -> None:
    _, plain = exported(name)
    assert rewrite(plain, tmp_path / "out.onnx")["last_layer"] > 20
    graph = OnnxGraph(tmp_path / "out.onnx")
    shapes = graph.shapes()
    softmaxes = [shapes[node.output[0]] for node in graph.nodes if node.op_type == "Softmax"]
    assert softmaxes == [("batch", 4, "sequence", "sequence"), ("batch", 4, 1, "sequence")]
    wide = [shapes[node.output[0]] for node in graph.nodes if node.op_type in {"Erf", "Tanh"}]
    assert wide.count(("batch", "sequence", 48)) == 1  # the first layer's activation alone


@pytest.mark.parametrize("name", ["deberta", "deberta-v2", "deberta-v3", "modernbert"])
def test_relative_and_rotary_positions_leave_one_row_of_scores(name: str, exported: Exported, tmp_path: Path) -> None:
    _, plain = exported(name)
    rewrite(plain, tmp_path / "out.onnx")
    graph = OnnxGraph(tmp_path / "out.onnx")
    shapes = graph.shapes()
    softmaxes = [shapes[node.output[0]] for node in graph.nodes if node.op_type == "Softmax"]
    assert softmaxes[-1] == ("batch", 4, 1, "sequence")
    assert all(shape == ("batch", 4, "sequence", "sequence") for shape in softmaxes[:-1])


@pytest.mark.parametrize("name", ["modernbert, mean", "gpt2", "llama"])
def test_a_head_that_reads_no_fixed_row_keeps_the_last_layer(name: str, exported: Exported, tmp_path: Path) -> None:
    _, plain = exported(name)
    assert rewrite(plain, tmp_path / "out.onnx")["last_layer"] == 0


def test_token_types_go_only_when_the_caller_vouches_for_them(exported: Exported, tmp_path: Path) -> None:
    _, plain = exported("bert")
    assert "token_types" not in rewrite(plain, tmp_path / "kept.onnx")
    assert "token_type_ids" in input_names(tmp_path / "kept.onnx")
    assert rewrite(plain, tmp_path / "gone.onnx", assuming=["token_types"])["embeddings"] == 1
    assert input_names(tmp_path / "gone.onnx") == ["input_ids", "attention_mask"]


def test_token_types_that_are_sent_still_count(exported: Exported, tmp_path: Path) -> None:
    model, plain = exported("bert")
    rewrite(plain, tmp_path / "out.onnx")
    batch = random_batch(model, 3, 12, input_names(plain))
    batch["token_type_ids"][:, 5:] = 1
    np.testing.assert_allclose(onnxruntime_run(tmp_path / "out.onnx")(batch), torch_logits(model, batch), atol=1e-4)


@pytest.mark.parametrize(("first", "zeros"), [(0, True), (1, False)])
def test_the_tokenizer_says_whether_types_are_zero(first: int, zeros: bool, tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, processors

    tokenizer = Tokenizer(models.WordLevel({"[CLS]": 0, "[UNK]": 1, "a": 2}, unk_token="[UNK]"))
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"[CLS]:{first} $A:0", special_tokens=[("[CLS]", 0)]
    )
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    assert sends_only_zeros(tmp_path / "tokenizer.json") is zeros
    assert sends_only_zeros(tmp_path / "tokenizer.json", pad_type=3) is False


def test_shapes_of_all_values_are_known_and_constant(exported: Exported, tmp_path: Path) -> None:
    _, plain = exported("bert")
    rewrite(plain, tmp_path / "out.onnx")
    graph = OnnxGraph(tmp_path / "out.onnx")
    shapes = graph.shapes()
    assert all(None not in shapes[node.output[0]] for node in graph.nodes)
    targets = [node.input[1] for node in graph.nodes if node.op_type == "Reshape"]
    assert targets
    assert all(target in graph.constants for target in targets)


def test_weights_that_layers_share_stay_shared(exported: Exported, tmp_path: Path) -> None:
    _, plain = exported("albert")
    rewrite(plain, tmp_path / "out.onnx")
    assert (tmp_path / "out.onnx").stat().st_size < 1.05 * plain.stat().st_size


def test_the_rewritten_graph_is_the_same_every_time(exported: Exported, tmp_path: Path) -> None:
    _, plain = exported("deberta-v3")
    for name in ("one", "other"):
        rewrite(plain, tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()


def test_a_rewritten_graph_can_be_rewritten_again(exported: Exported, tmp_path: Path) -> None:
    model, plain = exported("bert")
    rewrite(plain, tmp_path / "once.onnx")
    rewrite(tmp_path / "once.onnx", tmp_path / "twice.onnx")
    operators = [
        Counter(node.op_type for node in OnnxGraph(tmp_path / name).nodes) for name in ("once.onnx", "twice.onnx")
    ]
    assert operators[0] == operators[1]
    assert_equal_logits(model, plain, tmp_path / "twice.onnx")


def test_a_rewrite_that_is_not_known_is_refused(exported: Exported, tmp_path: Path) -> None:
    _, plain = exported("bert")
    with pytest.raises(ExportError, match="no rewrite 'magic'; there are: token_types, constants"):
        rewrite(plain, tmp_path / "out.onnx", only=["magic"])
    assert not (tmp_path / "out.onnx").exists()


@pytest.mark.parametrize(
    ("source", "target", "result"),
    [
        (("batch", "sequence", 32), (0, -1, 4, 8), ("batch", "sequence", 4, 8)),
        (("batch", 4, "sequence", 8), (-1, "sequence", 8), ("4*batch", "sequence", 8)),
        (("4*batch", "sequence", 8), (-1, 4, "sequence", 8), ("batch", 4, "sequence", 8)),
        (("batch", None, 32), (0, -1, 4, 8), ("batch", None, 4, 8)),
        (("batch", 32), (-1, 5), (None, 5)),
    ],
)
def test_a_reshape_keeps_the_product_of_its_axes(source: Any, target: Any, result: Any) -> None:
    assert solve_reshape(source, target) == result
