"""What a family must say about itself, and cutting by it."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from slipway.anatomy.shapes import LayerShape
from slipway.anatomy.units import Layer, keep_units


@dataclass(frozen=True)
class Kept:
    """What stays of one layer: its position in the model at hand, and the numbers of its units there."""

    position: int
    heads: Sequence[int]
    neurons: Sequence[int]
    repeats: int = 1


class Family(ABC):
    """Models whose layers are laid out alike."""

    model_types: ClassVar[tuple[str, ...]]
    shares_layers: ClassVar[bool] = False
    """Layers share weights: they can be run less often, but none of them can be taken out."""

    @abstractmethod
    def holder(self, model: Any) -> tuple[Any, str]:
        """The module and the name under which the list of layers is found."""

    @abstractmethod
    def layer(self, module: Any) -> Layer:
        """What can be cut in this one of them."""

    def layers(self, model: Any) -> list[Layer]:
        """The layers of a classifier of this family, dense or pruned, first to last."""
        owner, name = self.holder(model)
        return [self.layer(module) for module in getattr(owner, name)]

    def required_layers(self, config: Any) -> frozenset[int]:
        """Numbers of dense layers that can't be taken out."""
        del config
        return frozenset()

    def keep(self, model: Any, kept: Sequence[Kept]) -> None:
        """Cut everything but `kept`, in place."""
        layers = self.layers(model)
        for one in kept:
            keep_units(layers[one.position].heads, one.heads)
            keep_units(layers[one.position].neurons, one.neurons)
        if len(kept) < len(layers):
            self.keep_layers(model, [one.position for one in kept])

    def keep_layers(self, model: Any, positions: Sequence[int]) -> None:
        """Take out all layers but those at `positions`, in place."""
        import torch

        owner, name = self.holder(model)
        modules = getattr(owner, name)
        setattr(owner, name, torch.nn.ModuleList([modules[position] for position in positions]))
        for number, position in enumerate(positions):
            for module in modules[position].modules():
                if hasattr(module, "layer_idx"):
                    # The slot in a cache of keys and values, which now has one for each layer that stays.
                    module.layer_idx = number
        for config in configs(model):
            config.num_hidden_layers = len(positions)
            types = getattr(config, "layer_types", None)
            if types is not None and len(types) != len(positions):
                config.layer_types = [types[position] for position in positions]


def configs(model: Any) -> list[Any]:
    """The distinct config objects in a model: a decoder's classifier builds its body from a copy of its own."""
    found = {id(module.config): module.config for module in model.modules() if hasattr(module, "config")}
    return list(found.values())


def shapes_of(layers: Sequence[Layer]) -> tuple[LayerShape, ...]:
    """Sizes of the layers of a dense model."""
    return tuple(
        LayerShape(number, layer.heads.count, layer.neurons.count, repeats=layer.repeats)
        for number, layer in enumerate(layers)
    )
