"""What a layer costs: multiply-adds per token in its matrix products.

Counted are the products with weights, and, for a given number of tokens, the two products of attention, which every
token does with every other. Embeddings, norms, softmax and the head are left out: a compute budget is about what
pruning can change. At hidden size 384 attention between tokens is 1 % of a dense layer at 32 tokens and 5 % at 128.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from slipway.anatomy import anatomy_of
from slipway.anatomy.shapes import LayerShape


@dataclass(frozen=True)
class LayerCost:
    """One layer of a model at hand: its sizes, and what a unit of it costs in one run."""

    shape: LayerShape
    head: int
    """Multiply-adds per token of one head."""
    neuron: int
    """Multiply-adds per token of one neuron."""
    context: int
    """Numbers that one head adds to a token's context: attention over n tokens costs 2 · n · context more."""
    heads_fixed: bool = False
    neurons_fixed: bool = False


@dataclass(frozen=True)
class Structure:
    """What can be cut in a model, and what it costs."""

    layers: tuple[LayerCost, ...]
    dense: tuple[LayerShape, ...]
    required: frozenset[int]
    """Numbers of dense layers that can't be taken out."""
    shares_layers: bool

    def multiply_adds(self, shapes: Sequence[LayerShape], *, tokens: int = 0) -> int:
        """Per token, of layers with these sizes; `tokens` 0 leaves out what attention does between tokens."""
        # All layers of a family have the same hidden size, so a unit costs the same in each.
        layer = self.layers[0]
        head = layer.head + 2 * tokens * layer.context
        return sum(shape.repeats * (shape.heads * head + shape.neurons * layer.neuron) for shape in shapes)

    def share(self, shapes: Sequence[LayerShape], *, tokens: int = 0) -> float:
        """The same as a share of the dense model."""
        return self.multiply_adds(shapes, tokens=tokens) / self.multiply_adds(self.dense, tokens=tokens)


def structure_of(model: Any) -> Structure:
    """The structure of a classifier, dense or pruned. Raises `ExportError` if its family can't be pruned."""
    from slipway.pruned import dense_shapes_of, shapes_of

    family = anatomy_of(model)
    layers = tuple(
        LayerCost(
            shape=shape,
            head=layer.heads.multiply_adds,
            neuron=layer.neurons.multiply_adds,
            context=layer.heads.width,
            heads_fixed=bool(layer.heads.fixed),
            neurons_fixed=bool(layer.neurons.fixed),
        )
        for shape, layer in zip(shapes_of(model), family.layers(model), strict=True)
    )
    return Structure(layers, dense_shapes_of(model), family.required_layers(model.config), family.shares_layers)
