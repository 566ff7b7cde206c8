"""Pruning: plans that meet a budget with what matters most, and models that are smaller for it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from export.pruning import Plan, plan, prune, structure_of
from export.pruning.importance import Importance, LayerImportance, eliminate, measure
from slipway.anatomy import anatomy_of
from slipway.errors import ExportError
from slipway.pruned import load_classifier, shapes_of
from tests.tiny_classifiers import CLASSIFIERS, tiny_batch, tiny_classifier

pytestmark = pytest.mark.integration

families = pytest.mark.parametrize("name", CLASSIFIERS)


def batches() -> list[dict[str, Any]]:
    return [tiny_batch(seed=seed) for seed in range(2)]


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(**{name: value for name, value in tiny_batch().items() if name != "labels"}).logits


def given(structure: Any, seed: int = 0) -> Importance:
    """Random importance that fits `structure`."""
    generator = np.random.default_rng(seed)
    return Importance(
        "taylor",
        tuple(
            LayerImportance(
                generator.random(layer.shape.heads, dtype=np.float32),
                generator.random(layer.shape.neurons, dtype=np.float32),
            )
            for layer in structure.layers
        ),
        1,
    )


def multiply_adds(model: Any, tokens: int = 12) -> int:
    """Multiply-adds per token of the layers' linears, counted as they run."""
    import transformers

    total = 0
    inside = [module for layer in anatomy_of(model).layers(model) for module in layer.module.modules()]

    def count(module: Any, arguments: Any, output: Any) -> None:
        nonlocal total
        # A projection of relative positions runs on other rows than the tokens of the four texts.
        if arguments[0].shape[:-1] == (4, tokens):
            total += module.weight.numel()

    handles = [
        module.register_forward_hook(count)
        for module in dict.fromkeys(inside)
        if isinstance(module, torch.nn.Linear | transformers.pytorch_utils.Conv1D)
    ]
    logits(model)
    for handle in handles:
        handle.remove()
    return total


@families
def test_keeping_everything_is_the_identity(name: str) -> None:
    model = tiny_classifier(name)
    structure = structure_of(model)
    chosen = plan(given(structure), structure, compute=1.0)
    assert chosen.compute == 1.0
    assert torch.equal(logits(prune(model, chosen)), logits(model))


@families
def test_the_budget_is_met_in_computation_that_is_really_gone(name: str, tmp_path: Path) -> None:
    model = tiny_classifier(name)
    structure = structure_of(model)
    chosen = plan(measure(model, batches()), structure, compute=0.5, multiple=8)
    smaller = prune(model, chosen)
    assert 0.4 < chosen.compute <= 0.5
    assert multiply_adds(smaller) / multiply_adds(model) == pytest.approx(chosen.compute)
    assert structure_of(smaller).share(shapes_of(smaller)) == pytest.approx(chosen.compute)
    assert all(shape.heads >= 1 and shape.neurons >= 8 and shape.neurons % 8 == 0 for shape in shapes_of(smaller))
    smaller.save_pretrained(tmp_path)
    assert torch.allclose(logits(load_classifier(tmp_path)), logits(smaller), atol=1e-6)


@families
def test_gradual_pruning_keeps_to_budgets_of_the_dense_model(name: str) -> None:
    model = dense = tiny_classifier(name)
    for budget in (0.7, 0.45, 0.3):
        structure = structure_of(model)
        chosen = plan(measure(model, batches()), structure, compute=budget, multiple=4)
        model = prune(model, chosen)
        assert chosen.compute <= budget
        assert multiply_adds(model) / multiply_adds(dense) == pytest.approx(chosen.compute)
    assert logits(model).isfinite().all()


def test_taylor_finds_the_head_that_is_not_used_and_magnitude_cuts_one_that_is() -> None:
    model = tiny_classifier("bert")
    attention = model.bert.encoder.layer[1].attention
    with torch.no_grad():
        for linear in (attention.self.query, attention.self.key, attention.self.value):
            linear.weight[16:24] *= 20
        attention.output.dense.weight[:, 16:24] = 0
        # One head is all that the budget takes, and neurons are worth more than any.
        for layer in model.bert.encoder.layer:
            layer.output.dense.weight *= 30
    structure = structure_of(model)
    head = structure.layers[0].head
    budget = 1 - head / structure.multiply_adds(structure.dense)
    by_taylor = prune(model, plan(measure(model, batches()), structure, compute=budget))
    by_magnitude = prune(model, plan(measure(model, (), "magnitude"), structure, compute=budget))
    assert shapes_of(by_taylor)[1].head_sources == (0, 1, 3)
    assert torch.allclose(logits(by_taylor), logits(model), atol=1e-5)
    assert 2 in (shapes_of(by_magnitude)[1].head_sources or range(4))
    assert not torch.allclose(logits(by_magnitude), logits(model), atol=1e-3)


def test_layers_get_as_much_as_they_matter() -> None:
    structure = structure_of(tiny_classifier("bert"))
    even = given(structure)
    factors = (1.0, 5.0, 0.1)
    importance = Importance(
        "taylor",
        tuple(
            LayerImportance(layer.heads * factor, layer.neurons * factor)
            for layer, factor in zip(even.layers, factors, strict=True)
        ),
        1,
    )
    chosen = plan(importance, structure, compute=0.5, multiple=8)
    cost = [
        len(one.heads) * structure.layers[0].head + len(one.neurons) * structure.layers[0].neuron
        for one in chosen.layers
    ]
    assert cost[1] > cost[0] > cost[2]


def test_heads_and_neurons_are_cut_to_the_same_share_whatever_their_importance() -> None:
    structure = structure_of(tiny_classifier("bert"))
    neurons = np.full(64, 1.0, dtype=np.float32)
    for worth in (1e-3, 1e3):
        importance = Importance("taylor", (LayerImportance(np.full(4, worth, dtype=np.float32), neurons),) * 3, 1)
        chosen = plan(importance, structure, compute=0.5, multiple=8)
        assert sum(len(one.heads) for one in chosen.layers) == 6
        assert sum(len(one.neurons) for one in chosen.layers) == 96


def test_the_most_important_units_of_a_layer_stay() -> None:
    structure = structure_of(tiny_classifier("bert"))
    importance = given(structure)
    chosen = plan(importance, structure, compute=0.4, multiple=8)
    for one, measured in zip(chosen.layers, importance.layers, strict=True):
        for kept, values in ((one.heads, measured.heads), (one.neurons, measured.neurons)):
            gone = sorted(set(range(len(values))) - set(kept))
            assert not gone or values[list(kept)].min() >= values[gone].max()
            assert list(kept) == sorted(kept)


def test_what_a_large_cut_left_over_is_given_back() -> None:
    structure = structure_of(tiny_classifier("bert"))
    total = structure.multiply_adds(structure.dense)
    layer = structure.layers[0]
    heads, neurons = np.full(4, 1e-3, dtype=np.float32), np.full(64, 1e-6, dtype=np.float32)
    importance = Importance("taylor", (LayerImportance(heads, neurons),) * 3, 1)
    budget = (total - 3 * 7 * 8 * layer.neuron - 8 * layer.neuron) / total
    chosen = plan(importance, structure, compute=budget, multiple=8)
    assert budget - chosen.compute < 8 * layer.neuron / total


def test_neurons_that_are_no_multiple_become_one() -> None:
    model = tiny_classifier("bert", intermediate_size=60)
    structure = structure_of(model)
    heads, neurons = np.ones(4, dtype=np.float32), np.ones(60, dtype=np.float32) / 99
    importance = Importance("taylor", (LayerImportance(heads, neurons),) * 3, 1)
    for compute in (1.0, 0.99, 0.8, 0.6, 0.4):
        chosen = plan(importance, structure, compute=compute, multiple=16)
        counts = [len(one.neurons) for one in chosen.layers]
        assert all(count == 60 or count % 16 == 0 for count in counts)
        assert chosen.compute <= compute


@families
def test_layers_that_are_named_stay(name: str) -> None:
    model = tiny_classifier(name)
    if anatomy_of(model).shares_layers:
        pytest.skip("layers share weights")
    structure = structure_of(model)
    chosen = plan(given(structure), structure, compute=1.0, layers=[2, 0])
    assert [one.position for one in chosen.layers] == [0, 2]
    assert chosen.compute == pytest.approx(2 / 3)
    smaller = prune(model, chosen)
    assert [shape.source for shape in shapes_of(smaller)] == [0, 2]
    assert multiply_adds(smaller) / multiply_adds(model) == pytest.approx(2 / 3)


def test_numbers_of_layers_keep_referring_to_the_dense_model() -> None:
    model = tiny_classifier("bert", num_hidden_layers=4)
    structure = structure_of(model)
    once = prune(model, plan(given(structure), structure, compute=1.0, layers=[1, 2, 3]))
    structure = structure_of(once)
    twice = prune(once, plan(given(structure), structure, compute=1.0, layers=[0, 2]))
    assert [shape.source for shape in shapes_of(once)] == [1, 2, 3]
    assert [shape.source for shape in shapes_of(twice)] == [1, 3]
    assert structure_of(twice).share(shapes_of(twice)) == 0.5


def test_a_layer_that_has_to_stay_stays_however_little_it_matters() -> None:
    structure = structure_of(tiny_classifier("deberta-v2"))
    first, *others = given(structure).layers
    unimportant = LayerImportance(first.heads / 9, first.neurons / 9)
    chosen = plan(Importance("taylor", (unimportant, *others), 1), structure, compute=1.0, layers=1)
    assert [one.position for one in chosen.layers] == [0]
    with pytest.raises(ExportError, match=r"\[0\] must stay"):
        plan(given(structure), structure, compute=1.0, layers=[1, 2])


def test_of_a_number_of_layers_the_one_of_the_least_important_units_goes() -> None:
    structure = structure_of(tiny_classifier("bert"))
    even = given(structure).layers
    small = LayerImportance(even[0].heads / 9, even[0].neurons / 9)
    chosen = plan(Importance("taylor", (small, *even[1:]), 1), structure, compute=1.0, layers=2)
    assert [one.position for one in chosen.layers] == [1, 2]


def test_layers_that_share_weights_are_run_less_often() -> None:
    model = tiny_classifier("albert")
    structure = structure_of(model)
    chosen = plan(measure(model, batches()), structure, compute=0.4, layers=2, multiple=8)
    smaller = prune(model, chosen)
    assert smaller.config.num_hidden_layers == 2
    assert chosen.compute <= 0.4
    assert multiply_adds(smaller) / multiply_adds(model) == pytest.approx(chosen.compute)
    with pytest.raises(ExportError, match="share weights"):
        plan(given(structure), structure, compute=1.0, layers=[0])


def test_attention_between_tokens_counts_when_asked_for() -> None:
    structure = structure_of(tiny_classifier("bert"))
    bare, counted = (structure.multiply_adds(structure.dense, tokens=tokens) for tokens in (0, 100))
    assert counted - bare == 3 * 4 * 2 * 100 * 8
    chosen = plan(given(structure), structure, compute=0.5, multiple=8, tokens=1000)
    assert structure.share(_shapes(structure, chosen), tokens=1000) == pytest.approx(chosen.compute)
    # Attention is nearly all there is at a thousand tokens, so heads go and neurons stay.
    assert sum(len(one.heads) for one in chosen.layers) <= 6


def _shapes(structure: Any, chosen: Plan) -> list[Any]:
    import dataclasses

    return [
        dataclasses.replace(structure.dense[one.position], heads=len(one.heads), neurons=len(one.neurons))
        for one in chosen.layers
    ]


def test_heads_that_are_mixed_are_planned_to_stay() -> None:
    model = tiny_classifier("deberta", talking_head=True)
    structure = structure_of(model)
    chosen = plan(measure(model, batches()), structure, compute=0.7, multiple=8)
    assert {len(one.heads) for one in chosen.layers} == {4}
    prune(model, chosen)


def test_real_elimination_and_importance_plan_the_same_twice() -> None:
    model = tiny_classifier("distilbert")
    plans = [
        plan(
            measure(model, batches()),
            structure_of(model),
            compute=0.3,
            layers=eliminate(model, batches(), 2),
            multiple=8,
        )
        for _ in range(2)
    ]
    assert plans[0] == plans[1]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"compute": 0.0}, "budget of 0.0"),
        ({"compute": 1.5}, "budget of 1.5"),
        ({"compute": 0.01}, r"0\.01 can't be met: with the fewest heads and neurons"),
        ({"compute": 0.5, "layers": 0}, "keeping 0 layers is not possible; allowed are 1 to 3"),
        ({"compute": 0.5, "layers": 4}, "keeping 4 layers"),
        ({"compute": 0.5, "layers": [5]}, r"the model has layers 0 to 2"),
    ],
)
def test_impossible_plans_say_what_is_possible(options: dict[str, Any], reason: str) -> None:
    structure = structure_of(tiny_classifier("bert"))
    with pytest.raises(ExportError, match=reason):
        plan(given(structure), structure, **options)


def test_importance_of_another_model_is_refused() -> None:
    structure = structure_of(tiny_classifier("bert"))
    other = structure_of(tiny_classifier("bert", intermediate_size=32))
    with pytest.raises(ExportError, match="measure it again"):
        plan(given(other), structure, compute=0.5)


def test_every_layer_keeps_its_floor_of_heads_and_neurons() -> None:
    model = tiny_classifier("bert")
    structure = structure_of(model)
    # Everything that matters is in one layer: left to itself, the ranking would empty the others.
    layers = tuple(
        LayerImportance(
            np.full(layer.shape.heads, float(number == 0), np.float32),
            np.full(layer.shape.neurons, float(number == 0), np.float32),
        )
        for number, layer in enumerate(structure.layers)
    )
    importance = Importance("taylor", layers, 1)
    free = plan(importance, structure, compute=0.5, multiple=1)
    bounded = plan(importance, structure, compute=0.5, multiple=1, floor=1.0)
    assert min(len(kept.heads) for kept in free.layers) == 1
    for kept, layer in zip(bounded.layers, structure.layers, strict=True):
        assert len(kept.heads) >= layer.shape.heads // 2
        assert len(kept.neurons) >= layer.shape.neurons // 2


def test_a_last_layer_that_runs_for_few_rows_keeps_more() -> None:
    model = tiny_classifier("bert")
    structure = structure_of(model)
    layers = tuple(
        LayerImportance(np.ones(layer.shape.heads, np.float32), np.ones(layer.shape.neurons, np.float32))
        for layer in structure.layers
    )
    chosen = plan(Importance("taylor", layers, 1), structure, compute=0.2, multiple=1, last_rows=1 / 32)
    *others, last = chosen.layers
    assert len(last.neurons) == structure.layers[-1].shape.neurons
    assert all(len(kept.neurons) < len(last.neurons) for kept in others)
    assert chosen.compute <= 0.2
