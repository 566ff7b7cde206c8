"""Pruned models: the same logits as the family's own layers would give, saved, loaded and fine-tuned like any."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from slipway.anatomy import LayerShape, anatomy_of
from slipway.anatomy.family import Kept
from slipway.errors import ExportError, TrainingError
from slipway.pruned import PrunedForSequenceClassification, cut, dense_shapes_of, load_classifier, shapes_of
from tests.tiny_base import write_tiny_base
from tests.tiny_classifiers import CLASSIFIERS, tiny_batch, tiny_classifier

pytestmark = pytest.mark.integration

families = pytest.mark.parametrize("name", CLASSIFIERS)


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(**{name: value for name, value in tiny_batch().items() if name != "labels"}).logits


def everything(model: Any) -> list[Kept]:
    return [
        Kept(position, range(layer.heads.count), range(layer.neurons.count), layer.repeats)
        for position, layer in enumerate(anatomy_of(model).layers(model))
    ]


def assert_same(one: Any, other: Any) -> None:
    """Equal but for the last bits, which depend on how weights lie in memory."""
    assert torch.allclose(logits(one), logits(other), atol=1e-6)


def uneven(model: Any) -> list[Kept]:
    """Other heads, and as many other neurons, in each layer; the middle layer goes where one can."""
    kept = []
    for whole in everything(model):
        if whole.position == 1 and not anatomy_of(model).shares_layers:
            continue
        heads = list(whole.heads)[1:] if whole.position % 2 else list(whole.heads)[::2]
        kept.append(Kept(whole.position, heads, range(whole.position, 40 + whole.position), whole.repeats))
    return kept


def silence(model: Any, head: int, neuron: int) -> None:
    """Zero what one head and one neuron give to each layer's output."""
    with torch.no_grad():
        for layer in anatomy_of(model).layers(model):
            for units, dead in ((layer.heads, head), (layer.neurons, neuron)):
                columns = slice(dead * units.width, (dead + 1) * units.width)
                transposed = isinstance(units.gate, transformers.pytorch_utils.Conv1D)
                (units.gate.weight if transposed else units.gate.weight.T)[columns] = 0


def without(numbers: Sequence[int], gone: int) -> list[int]:
    return [number for number in numbers if number != gone]


@families
def test_a_model_of_which_everything_is_kept_is_the_same_model(name: str) -> None:
    model = tiny_classifier(name)
    assert torch.equal(logits(cut(model, everything(model))), logits(model))


@families
def test_cutting_what_gives_nothing_changes_nothing(name: str) -> None:
    model = tiny_classifier(name)
    silence(model, head=1, neuron=5)
    kept = [
        Kept(one.position, without(one.heads, 1), without(one.neurons, 5), one.repeats) for one in everything(model)
    ]
    smaller = cut(model, kept)
    assert torch.allclose(logits(smaller), logits(model), atol=1e-5)
    # Another head instead would have changed the answer, so the test can fail.
    kept = [
        Kept(one.position, without(one.heads, 0), without(one.neurons, 5), one.repeats) for one in everything(model)
    ]
    assert not torch.allclose(logits(cut(model, kept)), logits(model), atol=1e-3)


@families
def test_a_saved_model_loads_with_the_same_answers_and_sizes(name: str, tmp_path: Path) -> None:
    model = tiny_classifier(name)
    smaller = cut(model, uneven(model))
    smaller.save_pretrained(tmp_path)
    loaded = load_classifier(tmp_path)
    assert_same(loaded, smaller)
    assert shapes_of(loaded) == shapes_of(smaller)
    assert dense_shapes_of(loaded) == dense_shapes_of(model) == shapes_of(model)
    assert loaded.config.model_type == model.config.model_type
    assert sum(map(torch.numel, loaded.parameters())) < sum(map(torch.numel, model.parameters()))
    assert {file.suffix for file in tmp_path.iterdir()} == {".json", ".safetensors"}
    assert set(load_file(tmp_path / "model.safetensors")) <= set(model.state_dict())


@families
def test_a_pruned_model_is_pruned_again_in_numbers_of_the_dense_one(name: str, tmp_path: Path) -> None:
    model = tiny_classifier(name)
    once = cut(model, uneven(model))
    kept = [Kept(one.position, list(one.heads)[-1:], range(3, 20), one.repeats) for one in everything(once)]
    twice = cut(once, kept)
    dense = dense_shapes_of(model)[-1].heads
    for before, shape in zip(shapes_of(once), shapes_of(twice), strict=True):
        assert (shape.source, shape.heads, shape.neurons) == (before.source, 1, 17)
        assert shape.head_sources == (before.head_sources or tuple(range(dense)))[-1:]
    at_once = [
        Kept(shape.source, shape.head_sources, range(first.position + 3, first.position + 20), shape.repeats)
        for shape, first in zip(shapes_of(twice), uneven(model), strict=True)
    ]
    assert_same(cut(model, at_once), twice)
    twice.save_pretrained(tmp_path)
    assert_same(load_classifier(tmp_path), twice)


@families
def test_a_layer_that_is_taken_out_is_skipped(name: str) -> None:
    model = tiny_classifier(name)
    if anatomy_of(model).shares_layers:
        pytest.skip("layers share weights")
    smaller = cut(model, [one for one in everything(model) if one.position != 1])
    layer = anatomy_of(model).layers(model)[1].module

    def passed_on(_: Any, arguments: Any, named: Any, output: Any) -> Any:
        given = arguments[0] if arguments else named["hidden_states"]
        return (given, *output[1:]) if isinstance(output, tuple) else given

    layer.register_forward_hook(passed_on, with_kwargs=True)
    assert_same(smaller, model)
    assert smaller.config.num_hidden_layers == 2
    assert [shape.source for shape in shapes_of(smaller)] == [0, 2]


def test_layers_that_share_weights_run_less_often(tmp_path: Path) -> None:
    model = tiny_classifier("albert")
    smaller = cut(model, [Kept(0, range(4), range(64), repeats=2)])
    model.config.num_hidden_layers = 2
    assert_same(smaller, model)
    smaller.save_pretrained(tmp_path)
    assert load_classifier(tmp_path).config.num_hidden_layers == 2
    assert shapes_of(load_classifier(tmp_path)) == (LayerShape(0, 4, 64, repeats=2),)


def test_the_original_model_stays_as_it_was() -> None:
    model = tiny_classifier("bert")
    before = logits(model)
    cut(model, uneven(model))
    assert torch.equal(logits(model), before)
    assert model.config.num_hidden_layers == 3


@families
def test_the_config_reads_like_the_familys(name: str, tmp_path: Path) -> None:
    model = tiny_classifier(name, id2label={0: "bad", 1: "fair", 2: "good"})
    smaller = cut(model, uneven(model))
    smaller.save_pretrained(tmp_path)
    config = transformers.AutoConfig.from_pretrained(tmp_path)
    assert (config.hidden_size, config.vocab_size, config.max_position_embeddings, config.pad_token_id) == (
        32,
        60,
        40,
        1,
    )
    assert config.id2label == {0: "bad", 1: "fair", 2: "good"}
    assert config.num_hidden_layers == smaller.config.num_hidden_layers
    written = json.loads((tmp_path / "config.json").read_text())
    assert written["model_type"] == "slipway-pruned"
    assert written["family"] == model.config.model_type
    assert written["id2label"]["2"] == "good"


def test_a_smaller_vocabulary_stays_small(tmp_path: Path) -> None:
    model = tiny_classifier("bert")
    smaller = cut(model, uneven(model))
    rows = smaller.get_input_embeddings().weight[:50].detach().clone()
    smaller.set_input_embeddings(torch.nn.Embedding.from_pretrained(rows, freeze=False, padding_idx=1))
    smaller.config.vocab_size = 50
    smaller.save_pretrained(tmp_path)
    assert torch.equal(load_classifier(tmp_path).get_input_embeddings().weight, rows)


@families
def test_a_pruned_model_learns_new_labels(name: str, tmp_path: Path) -> None:
    model = tiny_classifier(name)
    cut(model, uneven(model)).save_pretrained(tmp_path)
    loaded = transformers.AutoModelForSequenceClassification.from_pretrained(
        tmp_path, num_labels=5, ignore_mismatched_sizes=True, use_safetensors=True, attn_implementation="eager"
    )
    batch = tiny_batch()
    loaded(**batch).loss.backward()
    assert loaded(**batch).logits.shape == (4, 5)
    untouched = [name for name, weight in loaded.base_model.named_parameters() if weight.grad is None]
    assert not [name for name in untouched if "pooler" not in name and "position" not in name]


def test_a_random_model_is_built_from_a_config(tmp_path: Path) -> None:
    cut(tiny_classifier("bert"), uneven(tiny_classifier("bert"))).save_pretrained(tmp_path)
    config = transformers.AutoConfig.from_pretrained(tmp_path)
    fresh = transformers.AutoModelForSequenceClassification.from_config(config)
    assert isinstance(fresh, PrunedForSequenceClassification)
    assert [shape.source for shape in shapes_of(fresh)] == [0, 2]
    assert fresh.bert.encoder.layer[0].output.dense.in_features == 40


def test_a_dense_checkpoint_is_loaded_too(tmp_path: Path) -> None:
    model = tiny_classifier("bert")
    model.save_pretrained(tmp_path)
    loaded = load_classifier(tmp_path)
    assert_same(loaded, model)
    assert not isinstance(loaded, PrunedForSequenceClassification)


def test_a_pruned_base_is_fine_tuned_again(tmp_path: Path) -> None:
    from slipway.recipe import Base
    from training.bases import load_base

    write_tiny_base(tmp_path / "base")
    model = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "base", num_labels=2)
    smaller = cut(model, [Kept(0, [0], range(40)), Kept(1, [1], range(24))])
    shutil.copytree(tmp_path / "base", tmp_path / "pruned")
    smaller.save_pretrained(tmp_path / "pruned")
    base = load_base(Base(model=f"file:{tmp_path / 'pruned'}"), "sequence-classification", ["a", "b", "c"], 32, seed=0)
    batch = base.tokenizer(["great film", "dull"], return_tensors="pt", padding=True)
    before = base.model.bert.encoder.layer[0].output.dense.weight.detach().clone()
    optimizer = torch.optim.SGD(base.model.parameters(), lr=1.0)
    base.model(**batch, labels=torch.tensor([0, 2])).loss.backward()
    optimizer.step()
    assert not torch.equal(base.model.bert.encoder.layer[0].output.dense.weight, before)
    base.model.eval().save_pretrained(tmp_path / "again")
    again = load_classifier(tmp_path / "again")
    assert torch.allclose(again(**batch).logits, base.model(**batch).logits, atol=1e-6)
    assert shapes_of(again) == shapes_of(smaller)
    assert again.config.id2label == {0: "a", 1: "b", 2: "c"}


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A pruned BERT with layers 0 and 2, to be damaged."""
    model = tiny_classifier("bert")
    cut(model, uneven(model)).save_pretrained(tmp_path)
    return tmp_path


def damage(folder: Path, layer: int, **sizes: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["layer_shapes"][layer].update(sizes)
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("sizes", "reason"),
    [
        ({"heads": 0, "head_sources": []}, r"layer 0 0 heads; allowed are 1 to 4"),
        ({"heads": 5, "head_sources": []}, r"layer 0 5 heads; allowed are 1 to 4"),
        ({"neurons": 0}, r"0 neurons; allowed are 1 to 64"),
        ({"neurons": 65}, r"65 neurons; allowed are 1 to 64"),
        ({"neurons": "all"}, r"size 'all', which is no number"),
        ({"source": 2}, r"layers \[2, 2\]; allowed are rising numbers from 0 to 2"),
        ({"source": -1}, r"layers \[-1, 2\]"),
        ({"head_sources": [0, 9]}, r"heads \[0, 9\] of layer 0"),
        ({"depth": 3}, r"layer_shapes that can't be read"),
        ({"neurons": 39}, r"3 tensors of the pruned model are missing or not of the size .* is damaged"),
    ],
)
def test_impossible_sizes_are_refused(saved: Path, sizes: dict[str, Any], reason: str) -> None:
    damage(saved, 0, **sizes)
    with pytest.raises(ExportError, match=reason) as raised:
        load_classifier(saved)
    assert "\n" not in str(raised.value)


def test_a_missing_tensor_is_named(saved: Path) -> None:
    weights = load_file(saved / "model.safetensors")
    del weights["bert.encoder.layer.1.output.dense.weight"]
    save_file(weights, saved / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ExportError, match=r"bert\.encoder\.layer\.1\.output\.dense\.weight"):
        load_classifier(saved)


def test_a_damaged_base_is_refused_by_training(tmp_path: Path) -> None:
    from slipway.recipe import Base
    from training.bases import load_base

    write_tiny_base(tmp_path)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path, num_labels=2)
    cut(model, [Kept(0, [0], range(40))]).save_pretrained(tmp_path)
    damage(tmp_path, 0, neurons=41)
    with pytest.raises(TrainingError, match=r"can't be loaded: .*damaged"):
        load_base(Base(model=f"file:{tmp_path}"), "sequence-classification", ["a", "b"], 32, seed=0)


def test_an_unknown_family_is_named(tmp_path: Path) -> None:
    config = transformers.FunnelConfig(vocab_size=60, d_model=32, n_head=2, d_head=16, d_inner=64, block_sizes=[1])
    model = transformers.FunnelForSequenceClassification(config)
    with pytest.raises(ExportError, match=r"'funnel' can't be pruned; the types that can are .*bert.*gpt2"):
        cut(model, [])


def test_a_layer_beside_a_convolution_has_to_stay() -> None:
    model = tiny_classifier("deberta-v2")
    with pytest.raises(ExportError, match=r"layers \[0\] of this deberta-v2 model can't be taken out"):
        cut(model, everything(model)[1:])


def test_heads_that_are_mixed_have_to_stay() -> None:
    model = tiny_classifier("deberta", talking_head=True)
    kept = everything(model)
    with pytest.raises(ExportError, match="talking heads"):
        cut(model, [Kept(0, [0, 1], range(64)), *kept[1:]])
    assert torch.equal(logits(cut(model, kept)), logits(model))
