"""How much each head, neuron and layer matters to the loss on training data.

Taylor: a gate of 1 is put on each head's context and on each neuron; removing the unit means gate 0, so the loss
changes by the gate's gradient, to first order. Its absolute value, example by example, is summed (Michel et al. 2019,
"Are sixteen heads really better than one?"; Molchanov et al. 2019, "Importance estimation for neural network pruning").
It costs one forward and one backward pass through the activations (not the weights), and estimates for heads and
neurons of all layers are in the same unit, so that they can be ranked against each other. Gates are kept apart for each
example, which costs nothing and keeps an example's gain from cancelling another's loss.

Magnitude: the sum of squared weights of the unit, which needs no data. It is the baseline: it can't tell a head that is
large from one that is used.

Layers: first-order estimates are poor for what is as large as a layer, so a layer's importance is measured by leaving
it out, one after another, and again each time (`eliminate`, about layers² / 2 passes over the batches): which layer can
be missed depends on which are gone.

The gates sit on the input of the output projections, so no model code is touched and any family of `slipway.anatomy`
works.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from slipway.anatomy import Units, anatomy_of
from slipway.errors import ExportError

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True)
class LayerImportance:
    """Of one layer's units: float32 `[heads]` and `[neurons]`, higher is more important."""

    heads: FloatArray
    neurons: FloatArray

    @property
    def total(self) -> float:
        """Sum over all units."""
        return float(self.heads.sum() + self.neurons.sum())


@dataclass(frozen=True)
class Importance:
    """Of all units of a model, layer by layer as the model has them, and how it was measured."""

    method: str
    layers: tuple[LayerImportance, ...]
    examples: int


def measure(model: Any, batches: Iterable[Mapping[str, Any]], method: str = "taylor") -> Importance:
    """Importance of the heads and neurons of a classifier.

    Args:
        model: a transformers classifier, dense or pruned; left as it is.
        batches: the model's inputs as int64 tensors `[batch, tokens]`, and `labels`: class numbers `[batch]`, or what a
            teacher gave to each class, float `[batch, labels]`. A few hundred examples do. Magnitude doesn't look.
        method: one of `METHODS`.

    Raises `ExportError` if the family can't be pruned, there are no batches, or they have no labels.
    """
    if method not in METHODS:
        raise ExportError(f"there is no importance {method!r}; there are {', '.join(METHODS)}.")
    return METHODS[method](model, batches)


def taylor(model: Any, batches: Iterable[Mapping[str, Any]]) -> Importance:
    """First-order importance; see the head of this file. Unit: nats per example."""
    import torch

    layers = anatomy_of(model).layers(model)
    units = [units for layer in layers for units in (layer.heads, layer.neurons)]
    sums = [torch.zeros(one.count, dtype=torch.float64) for one in units]
    examples = 0
    with _evaluating(model), _gates(units) as begin, torch.enable_grad():
        for batch in batches:
            gates = begin(len(batch["input_ids"]), model.device)
            gradients = torch.autograd.grad(_losses(model, batch).sum(), gates)
            for total, gradient in zip(sums, gradients, strict=True):
                total.add_(gradient.abs().sum(dim=0).double().cpu())
            examples += len(batch["input_ids"])
    if not examples:
        raise ExportError("importance can't be measured: there are no training examples.")
    values = [(total / examples).float().numpy() for total in sums]
    return Importance("taylor", _by_layer(values), examples)


def magnitude(model: Any, _: Iterable[Mapping[str, Any]] = ()) -> Importance:
    """Sum of squared weights and biases of each unit."""
    import torch

    values = []
    for layer in anatomy_of(model).layers(model):
        for units in (layer.heads, layer.neurons):
            total = torch.zeros(units.count, dtype=torch.float64)
            for part in units.parts:
                tensor = getattr(part.module, part.name).detach().double().cpu().movedim(part.dimension, 0)
                total += tensor.reshape(part.blocks, units.count, -1).square().sum(dim=(0, 2))
            values.append(total.float().numpy())
    return Importance("magnitude", _by_layer(values), 0)


METHODS: dict[str, Callable[[Any, Iterable[Mapping[str, Any]]], Importance]] = {
    "taylor": taylor,
    "magnitude": magnitude,
}


def eliminate(
    model: Any, batches: Iterable[Mapping[str, Any]], keep: int, *, required: Iterable[int] = ()
) -> tuple[int, ...]:
    """Positions of the `keep` layers that are left when the least harmful one goes, again and again.

    `required` are positions that stay in any case. Raises `ExportError` as `measure` does, or if the layers share
    weights and so can't go one by one.
    """
    family = anatomy_of(model)
    if family.shares_layers:
        raise ExportError(f"layers of a {model.config.model_type} model share weights and can't be taken out.")
    number, held, stay = len(family.layers(model)), list(batches), frozenset(required)
    removed: tuple[int, ...] = ()
    while number - len(removed) > max(keep, len(stay)):
        left = [layer for layer in range(number) if layer not in removed and layer not in stay]
        removed = (*removed, min(left, key=lambda layer: _mean_loss(model, held, (*removed, layer))))
    return tuple(layer for layer in range(number) if layer not in removed)


def _by_layer(values: Sequence[FloatArray]) -> tuple[LayerImportance, ...]:
    return tuple(LayerImportance(heads, neurons) for heads, neurons in zip(values[::2], values[1::2], strict=True))


def _losses(model: Any, batch: Mapping[str, Any]) -> Any:
    """Cross entropy of each example, `[batch]`."""
    import torch

    if "labels" not in batch:
        raise ExportError("importance can't be measured: the training batches have no labels.")
    inputs = {name: value.to(model.device) for name, value in batch.items() if name != "labels"}
    logits = model(**inputs).logits
    return torch.nn.functional.cross_entropy(logits, batch["labels"].to(model.device), reduction="none")


def _mean_loss(model: Any, batches: Sequence[Mapping[str, Any]], removed: Sequence[int]) -> float:
    import torch

    total, examples = 0.0, 0
    with _evaluating(model), _without(model, removed), torch.no_grad():
        for batch in batches:
            losses = _losses(model, batch)
            total, examples = total + float(losses.double().sum()), examples + len(losses)
    if not examples:
        raise ExportError("importance can't be measured: there are no training examples.")
    return total / examples


@contextlib.contextmanager
def _evaluating(model: Any) -> Iterator[None]:
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


@contextlib.contextmanager
def _gates(units: Sequence[Units]) -> Iterator[Callable[[int, Any], list[Any]]]:
    """Put a gate on each unit of each example; the yielded function starts a batch and returns its gates."""
    import torch

    current: list[Any] = []

    def begin(rows: int, device: Any) -> list[Any]:
        current[:] = [torch.ones(rows, one.count, device=device, requires_grad=True) for one in units]
        return list(current)

    def gate(number: int, width: int) -> Callable[[Any, tuple[Any, ...]], tuple[Any, ...]]:
        def apply(_: Any, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
            states, *rest = arguments
            factors = current[number].repeat_interleave(width, dim=1)
            return (states * factors[:, None, :].to(states.dtype), *rest)

        return apply

    handles = [one.gate.register_forward_pre_hook(gate(number, one.width)) for number, one in enumerate(units)]
    try:
        yield begin
    finally:
        for handle in handles:
            handle.remove()


@contextlib.contextmanager
def _without(model: Any, removed: Sequence[int]) -> Iterator[None]:
    """Let the layers at `removed` pass on what they are given."""
    layers = anatomy_of(model).layers(model)

    def skip(repeats: int) -> Callable[[Any, tuple[Any, ...], dict[str, Any], Any], Any]:
        runs = 0

        def passed_on(_: Any, arguments: tuple[Any, ...], named: dict[str, Any], output: Any) -> Any:
            nonlocal runs
            runs += 1
            if runs % repeats:
                return output
            given = arguments[0] if arguments else named["hidden_states"]
            return (given, *output[1:]) if isinstance(output, tuple) else given

        return passed_on

    handles = [
        layers[number].module.register_forward_hook(skip(layers[number].repeats), with_kwargs=True)
        for number in removed
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
