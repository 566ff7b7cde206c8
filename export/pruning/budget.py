"""Pruning structure: which heads, neurons and layers go, so that what is left fits a compute budget and hurts least.

Whole units go, never single weights, so the matrices that are left are small and dense and every engine is faster
for it; unstructured sparsity needs about 90 % zeros and special kernels before a CPU gains anything.

Sizes differ from layer to layer: the heads of all layers are ranked against each other by importance per multiply-add,
the neurons likewise, and the lowest of either go until the same share of both is left. Neurons go in multiples (32:
vector and cache-line sizes of the int8 kernels). One ranking for both was the first way, and lost: a first-order
estimate says what a unit is worth while the others are there, ranks the last head of a layer as if it were as
dispensable as the first, and takes nearly all heads before many neurons. MiniLM at a quarter of its computation,
distilled for eight epochs, lost 1.9 points of macro-F1 that way; equal shares lost 0.1 in three. So every layer also
keeps `floor` of what a uniform cut would leave it of its heads and of its neurons.

A classifier reads one row of the last layer, where an engine then computes queries and feed-forward for that row alone
(`export.rewrites.last_layer`): `last_rows` is the share of rows they run for, and makes units there cheap to keep.

A first-order estimate holds for small changes, so large cuts go in steps: a search's chain (`export.search.plans`) cuts
the student of the link before, recovered, with importance measured anew. Budgets are shares of the *dense* model
whatever was cut before, and so are the layer numbers.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from export.pruning.importance import Importance
from slipway.anatomy.compute import LayerCost, Structure
from slipway.anatomy.family import Kept
from slipway.errors import ExportError


@dataclass(frozen=True)
class Plan:
    """What stays of a model: layers by their position in it, and the numbers of their units there."""

    layers: tuple[Kept, ...]
    compute: float
    """Share of the dense model's multiply-adds per token that is left."""


_KINDS = ("heads", "neurons")


@dataclass
class _Stage:
    """One layer while it is being cut: its units from the least important on."""

    position: int
    cost: LayerCost
    repeats: int
    heads: list[int]
    neurons: list[int]
    rows: float
    """Share of the rows that queries, the output projection and the feed-forward run for."""
    least_heads: int = 1
    least_neurons: int = 1

    def head(self, tokens: int) -> float:
        """Multiply-adds per token of one head: half of them for keys and values, which all rows have."""
        return self.repeats * (self.cost.head * (1 + self.rows) / 2 + 2 * tokens * self.cost.context * self.rows)

    def neuron(self) -> float:
        """Multiply-adds per token of one neuron."""
        return self.repeats * self.cost.neuron * self.rows

    def multiply_adds(self, tokens: int) -> float:
        """Per token, of what is left."""
        return len(self.heads) * self.head(tokens) + len(self.neurons) * self.neuron()


@dataclass(frozen=True)
class _Cut:
    """Units of one layer that go together."""

    stage: _Stage
    kind: str
    units: tuple[int, ...]
    multiply_adds: float
    worth: float
    """Importance for each multiply-add."""


def plan(
    importance: Importance,
    structure: Structure,
    *,
    compute: float,
    layers: int | Sequence[int] | None = None,
    multiple: int = 32,
    tokens: int = 0,
    floor: float = 0.0,
    last_rows: float = 1.0,
) -> Plan:
    """Choose what stays of a model.

    Args:
        importance: of its units, from `export.pruning.importance.measure` on this very model.
        structure: of the model, from `structure_of`.
        compute: the share of the dense model's multiply-adds per token that may be left, above 0 and at most 1. What is
            left by taking out layers alone may already be less.
        layers: the positions of the layers to keep (`export.pruning.importance.eliminate`), or how many: then those go
            whose units sum to the least. None keeps all. For layers that share weights, how often they run in all.
        multiple: neurons are kept in multiples of this.
        tokens: count attention over so many tokens; 0 leaves it out.
        floor: how much of a uniform cut every layer keeps of its heads and of its neurons, 0 to 1.
        last_rows: share of the rows that the last layer's queries and feed-forward run for.

    Raises `ExportError` if the budget can't be met, or the arguments don't belong together.
    """
    if not 0 < compute <= 1:
        raise ExportError(f"a compute budget of {compute} can't be pruned to; allowed is more than 0 and at most 1.")
    counts = [(len(layer.heads), len(layer.neurons)) for layer in importance.layers]
    if counts != [(layer.shape.heads, layer.shape.neurons) for layer in structure.layers]:
        raise ExportError("importance was measured on a model of other sizes; measure it again on this one.")
    stages = _stages(importance, structure, layers, last_rows)
    dense = _dense_multiply_adds(structure, tokens, last_rows)
    budget = compute * dense
    spent = sum(stage.multiply_adds(tokens) for stage in stages)
    for stage in stages:
        stage.least_heads = max(1, math.ceil(floor * min(1.0, budget / spent) * len(stage.heads) - 0.5))
        stage.least_neurons = max(1, math.ceil(floor * min(1.0, budget / spent) * len(stage.neurons) - 0.5))
    cuts = _cuts(importance, stages, multiple, tokens)
    taken = [step for kind in _KINDS for step in _lowest(cuts, stages, kind, budget / spent, tokens)]
    # What one kind could not give (fixed, or at its floor), the other has to.
    for step in sorted((step for step in cuts if step not in taken), key=lambda step: step.worth):
        if sum(stage.multiply_adds(tokens) for stage in stages) <= budget:
            break
        _take(step)
        taken.append(step)
    spent = sum(stage.multiply_adds(tokens) for stage in stages)
    if spent > budget:
        raise ExportError(
            f"a compute budget of {compute:g} can't be met: with the fewest heads and neurons a layer, "
            f"{spent / dense:.3g} of the dense model is left; keep fewer layers or ask for less."
        )
    _give_back(taken, budget - spent)
    kept = tuple(
        Kept(stage.position, tuple(sorted(stage.heads)), tuple(sorted(stage.neurons)), stage.repeats)
        for stage in stages
    )
    return Plan(kept, sum(stage.multiply_adds(tokens) for stage in stages) / dense)


def prune(model: Any, chosen: Plan) -> Any:
    """A new, smaller model with what `chosen` keeps of `model`; it saves, loads, trains and can be pruned again."""
    from slipway.pruned import cut

    return cut(model, chosen.layers)


def _stages(
    importance: Importance,
    structure: Structure,
    layers: int | Sequence[int] | None,
    last_rows: float,
) -> list[_Stage]:
    positions: Sequence[int] = range(len(structure.layers))
    repeats = structure.layers[0].shape.repeats
    if structure.shares_layers:
        repeats = _repeats(structure, layers)
    elif layers is not None:
        positions = _positions(importance, structure, layers)
    return [
        _Stage(
            position=position,
            cost=structure.layers[position],
            repeats=repeats,
            heads=_ascending(importance.layers[position].heads),
            neurons=_ascending(importance.layers[position].neurons),
            rows=last_rows if position == positions[-1] and not structure.shares_layers else 1.0,
        )
        for position in positions
    ]


def _repeats(structure: Structure, layers: int | Sequence[int] | None) -> int:
    distinct, most = len(structure.layers), structure.layers[0].shape.repeats
    if layers is None:
        return most
    if not isinstance(layers, int) or layers % distinct or not 1 <= layers // distinct <= most:
        raise ExportError(
            f"keeping layers {layers} is not possible: {distinct} layers share weights and run {distinct * most} times "
            f"in all; allowed are multiples of {distinct} up to that."
        )
    return layers // distinct


def _positions(importance: Importance, structure: Structure, layers: int | Sequence[int]) -> list[int]:
    number = len(structure.layers)
    required = [place for place, layer in enumerate(structure.layers) if layer.shape.source in structure.required]
    if isinstance(layers, int):
        if not max(1, len(required)) <= layers <= number:
            raise ExportError(
                f"keeping {layers} layers is not possible; allowed are {max(1, len(required))} to {number}."
            )
        totals = [layer.total for layer in importance.layers]
        others = sorted(set(range(number)) - set(required), key=lambda place: (-totals[place], place))
        return sorted([*required, *others[: layers - len(required)]])
    chosen = sorted(set(layers))
    if not chosen or chosen[0] < 0 or chosen[-1] >= number or not set(required) <= set(chosen):
        raise ExportError(
            f"keeping layers {list(layers)} is not possible: the model has layers 0 to {number - 1}"
            + (f", and {required} must stay." if required else ".")
        )
    return chosen


def _ascending(values: Any) -> list[int]:
    return [int(unit) for unit in np.argsort(values, kind="stable")]


def _cuts(importance: Importance, stages: Sequence[_Stage], multiple: int, tokens: int) -> list[_Cut]:
    """Everything that can go, what is worth least first."""
    cuts: list[_Cut] = []
    for stage in stages:
        measured, cost = importance.layers[stage.position], stage.cost
        if not cost.heads_fixed:
            each = stage.head(tokens)
            cuts += [
                _Cut(stage, "heads", (head,), each, float(measured.heads[head]) / each)
                for head in stage.heads[: len(stage.heads) - stage.least_heads]
            ]
        if not cost.neurons_fixed:
            worth = 0.0
            for group in _bundles(stage.neurons, multiple, stage.least_neurons):
                each = stage.neuron() * len(group)
                # Rising by construction, but for rounding, which must not turn the order around.
                worth = max(worth, float(measured.neurons[list(group)].sum(dtype=np.float64)) / each)
                cuts.append(_Cut(stage, "neurons", group, each, worth))
    return sorted(cuts, key=lambda one: one.worth)


def _lowest(cuts: Sequence[_Cut], stages: Sequence[_Stage], kind: str, share: float, tokens: int) -> list[_Cut]:
    """Take the cuts of `kind` that are worth least, until at most `share` of its multiply-adds is left."""
    head = {stage.position: stage.head(tokens) * len(stage.heads) for stage in stages}
    neuron = {stage.position: stage.neuron() * len(stage.neurons) for stage in stages}
    left = sum((head if kind == "heads" else neuron).values())
    most = share * left
    taken = []
    for step in cuts:
        if left <= most:
            break
        if step.kind == kind:
            _take(step)
            left -= step.multiply_adds
            taken.append(step)
    return taken


def _bundles(ascending: Sequence[int], multiple: int, least: int) -> list[tuple[int, ...]]:
    """Neurons that go together, so that a multiple is left each time; the `least` most important ones always stay."""
    total = len(ascending)
    sizes = [total, *(size for size in range(total - (total % multiple or multiple), 0, -multiple) if size >= least)]
    return [tuple(ascending[total - more : total - fewer]) for more, fewer in itertools.pairwise(sizes)]


def _take(step: _Cut) -> None:
    gone = set(step.units)
    units = step.stage.heads if step.kind == "heads" else step.stage.neurons
    units[:] = [unit for unit in units if unit not in gone]


def _give_back(taken: Sequence[_Cut], spare: float) -> None:
    """The last cut may have been larger than needed: undo the latest ones that fit in `spare`.

    In a layer, only in reverse order, so that what stays is the most important and a multiple.
    """
    passed: set[tuple[int, str]] = set()
    for step in reversed(taken):
        place = (step.stage.position, step.kind)
        if place in passed or step.multiply_adds > spare:
            passed.add(place)
            continue
        (step.stage.heads if step.kind == "heads" else step.stage.neurons).extend(step.units)
        spare -= step.multiply_adds


def _dense_multiply_adds(structure: Structure, tokens: int, last_rows: float) -> float:
    """Per token, of the dense model with the same economy in its last layer."""
    cost, last = structure.layers[0], len(structure.dense) - 1
    stages = [
        _Stage(
            position=position,
            cost=cost,
            repeats=shape.repeats,
            heads=list(range(shape.heads)),
            neurons=list(range(shape.neurons)),
            rows=last_rows if position == last and not structure.shares_layers else 1.0,
        )
        for position, shape in enumerate(structure.dense)
    ]
    return sum(stage.multiply_adds(tokens) for stage in stages)
