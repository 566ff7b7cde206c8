"""Importance: first-order estimates that agree with what removal does, and layers measured by leaving them out."""

from typing import Any

import numpy as np
import pytest
import torch

from export.pruning import plan, prune, structure_of
from export.pruning.importance import Importance, eliminate, measure
from slipway.anatomy import anatomy_of
from slipway.errors import ExportError
from tests.tiny_classifiers import CLASSIFIERS, tiny_batch, tiny_classifier

pytestmark = pytest.mark.integration

families = pytest.mark.parametrize("name", CLASSIFIERS)


def batches(number: int = 2) -> list[dict[str, Any]]:
    return [tiny_batch(seed=seed) for seed in range(number)]


def mean_loss(model: Any, data: list[dict[str, Any]]) -> float:
    with torch.no_grad():
        losses = [
            torch.nn.functional.cross_entropy(
                model(**{name: value for name, value in batch.items() if name != "labels"}).logits, batch["labels"]
            )
            for batch in data
        ]
    return float(torch.stack(losses).mean())


def scale_unit(units: Any, unit: int, factor: float) -> None:
    """Let one head or neuron give `factor` times as much to the layer's output."""
    columns = slice(unit * units.width, (unit + 1) * units.width)
    transposed = type(units.gate).__name__ == "Conv1D"
    with torch.no_grad():
        (units.gate.weight if transposed else units.gate.weight.T)[columns] *= factor


@families
def test_the_estimate_is_the_slope_of_the_loss_in_each_unit(name: str) -> None:
    model = tiny_classifier(name).double()
    data = [{key: value[:1] for key, value in tiny_batch().items()}]
    importance = measure(model, data)
    layers = anatomy_of(model).layers(model)
    for number in (0, len(layers) - 1):
        for kind in ("heads", "neurons"):
            units, unit = getattr(layers[number], kind), 1
            # Some families compute softmax or norms in fp32 whatever the model is in.
            step = 3e-3
            scale_unit(units, unit, 1 + step)
            above = mean_loss(model, data)
            scale_unit(units, unit, (1 - step) / (1 + step))
            below = mean_loss(model, data)
            scale_unit(units, unit, 1 / (1 - step))
            slope = abs(above - below) / (2 * step)
            assert getattr(importance.layers[number], kind)[unit] == pytest.approx(slope, rel=5e-3, abs=1e-4)


@families
def test_the_model_is_left_as_it_was(name: str) -> None:
    model = tiny_classifier(name).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    measure(model, batches(1))
    if not anatomy_of(model).shares_layers:
        eliminate(model, batches(1), 2)
    assert model.training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in model.modules())


def test_measuring_twice_gives_the_same() -> None:
    model = tiny_classifier("bert")
    one, other = measure(model, batches()), measure(model, batches())
    for first, second in zip(one.layers, other.layers, strict=True):
        assert np.array_equal(first.heads, second.heads)
        assert np.array_equal(first.neurons, second.neurons)
    assert one.examples == 8


def test_batches_of_other_sizes_give_the_same() -> None:
    model = tiny_classifier("bert").double()
    whole = tiny_batch()
    rows = [{name: value[row : row + 1] for name, value in whole.items()} for row in range(4)]
    one, other = measure(model, [whole]), measure(model, rows)
    for first, second in zip(one.layers, other.layers, strict=True):
        assert np.allclose(first.heads, second.heads, rtol=1e-4)
        assert np.allclose(first.neurons, second.neurons, rtol=1e-4, atol=1e-8)


def test_probabilities_of_a_teacher_will_do_as_labels() -> None:
    model = tiny_classifier("bert")
    batch = tiny_batch()
    certain = {**batch, "labels": torch.nn.functional.one_hot(batch["labels"], 3).float()}
    one, other = measure(model, [batch]), measure(model, [certain])
    assert np.allclose(one.layers[0].heads, other.layers[0].heads, rtol=1e-4)


def loud_but_unheard(head: int) -> Any:
    """A BERT one of whose heads has large weights and is hardly listened to: by the residual, nothing of it arrives."""
    model = tiny_classifier("bert")
    attention = model.bert.encoder.layer[1].attention
    rows = slice(8 * head, 8 * head + 8)
    with torch.no_grad():
        for linear in (attention.self.query, attention.self.key, attention.self.value):
            linear.weight[rows] *= 20
        attention.output.dense.weight[:, rows] = 0
    return model


def test_taylor_sees_that_a_large_head_is_not_used_and_magnitude_does_not() -> None:
    model = loud_but_unheard(2)
    assert measure(model, batches()).layers[1].heads.argmin() == 2
    assert measure(model, batches()).layers[1].heads[2] == 0
    assert measure(model, (), "magnitude").layers[1].heads.argmax() == 2


@families
def test_magnitude_is_the_sum_of_squares_of_what_a_cut_takes_away(name: str) -> None:
    model = tiny_classifier(name)
    importance = measure(model, (), "magnitude")
    for layer, measured in zip(anatomy_of(model).layers(model), importance.layers, strict=True):
        for units, values in ((layer.heads, measured.heads), (layer.neurons, measured.neurons)):
            total = sum(float(getattr(part.module, part.name).detach().square().sum()) for part in units.parts)
            assert values.shape == (units.count,)
            assert float(values.sum()) == pytest.approx(total, rel=1e-4)


def without(model: Any, layer: int) -> Any:
    """`model` with this layer cut out for real."""
    structure = structure_of(model)
    others = [place for place in range(len(structure.layers)) if place != layer]
    return prune(model, plan(measure(model, (), "magnitude"), structure, compute=1.0, layers=others))


@families
def test_the_layer_goes_whose_absence_costs_least(name: str) -> None:
    model = tiny_classifier(name)
    family = anatomy_of(model)
    if family.shares_layers:
        pytest.skip("layers share weights")
    required = family.required_layers(model.config)
    free = [layer for layer in range(len(family.layers(model))) if layer not in required]
    losses = {layer: mean_loss(without(model, layer), batches()) for layer in free}
    gone = min(free, key=lambda layer: losses[layer])
    kept = eliminate(model, batches(), len(family.layers(model)) - 1, required=required)
    assert set(range(len(family.layers(model)))) - set(kept) == {gone}


def test_elimination_measures_again_after_each_layer() -> None:
    model = tiny_classifier("bert", num_hidden_layers=4)
    data = batches()
    kept = eliminate(model, data, 3)
    (first,) = set(range(4)) - set(kept)
    smaller = without(model, first)
    positions = eliminate(smaller, data, 2)
    assert eliminate(model, data, 2) == tuple(kept[position] for position in positions)
    assert eliminate(model, data, 1, required=[first]) == (first,)


def test_layers_that_share_weights_are_not_eliminated() -> None:
    with pytest.raises(ExportError, match="share weights"):
        eliminate(tiny_classifier("albert"), batches(), 1)


@pytest.mark.parametrize(
    ("data", "method", "reason"),
    [
        ([], "taylor", "there are no training examples"),
        ([{"input_ids": torch.ones(1, 4, dtype=torch.long)}], "taylor", "have no labels"),
        ([], "hessian", "no importance 'hessian'; there are taylor, magnitude"),
    ],
)
def test_what_is_missing_is_named(data: list[dict[str, Any]], method: str, reason: str) -> None:
    with pytest.raises(ExportError, match=reason):
        measure(tiny_classifier("bert"), data, method)


def test_importance_knows_how_it_was_measured() -> None:
    importance = measure(tiny_classifier("gpt2"), batches(1))
    assert isinstance(importance, Importance)
    assert (importance.method, importance.examples) == ("taylor", 4)
