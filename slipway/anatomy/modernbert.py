"""ModernBERT: queries, keys and values stacked in one linear, gate and input of the feed-forward stacked in another.

Whether a layer attends to all tokens or to its neighbours follows from its number at construction. A layer that stays
keeps what it was built with, so layers are taken out of the dense model and not built under new numbers.
"""

from typing import Any, ClassVar

from slipway.anatomy.family import Family
from slipway.anatomy.units import Layer, Units, inputs, outputs


class ModernBert(Family):
    """ModernBERT."""

    model_types: ClassVar[tuple[str, ...]] = ("modernbert",)

    def holder(self, model: Any) -> tuple[Any, str]:
        """`layers`."""
        return model.base_model, "layers"

    def layers(self, model: Any) -> list[Layer]:
        """See `Family.layers`."""
        return [self._layer(module) for module in model.base_model.layers]

    def _layer(self, module: Any) -> Layer:
        attention, mlp = module.attn, module.mlp
        size = attention.head_dim
        heads = Units(
            count=attention.num_heads,
            parts=(*outputs(attention.Wqkv, size, blocks=3), *inputs(attention.Wo, size)),
            gate=attention.Wo,
            width=size,
            sizes=((attention, "num_heads", 1), (attention, "all_head_size", size)),
        )
        neurons = Units(
            count=mlp.Wo.weight.shape[1],
            parts=(*outputs(mlp.Wi, 1, blocks=2), *inputs(mlp.Wo, 1)),
            gate=mlp.Wo,
            width=1,
        )
        return Layer(module, heads, neurons)
