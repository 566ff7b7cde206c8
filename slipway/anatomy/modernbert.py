"""ModernBERT: queries, keys and values stacked in one linear, gate and input of the feed-forward stacked in another.

Whether a layer attends to all tokens or to its neighbours follows from its number at construction. A layer that stays
keeps what it was built with, so layers are taken out of the dense model and not built under new numbers.
"""

from typing import Any, ClassVar

from slipway.anatomy.family import Family
from slipway.anatomy.units import Layer, between, outputs


class ModernBert(Family):
    """ModernBERT."""

    model_types: ClassVar[tuple[str, ...]] = ("modernbert",)

    def holder(self, model: Any) -> tuple[Any, str]:
        """`layers`."""
        return model.base_model, "layers"

    def layer(self, module: Any) -> Layer:
        """See `Family.layer`."""
        attention, mlp = module.attn, module.mlp
        size = attention.head_dim
        heads = between(
            outputs(attention.Wqkv, width=size, blocks=3),
            attention.Wo,
            size,
            sizes=((attention, "num_heads", 1), (attention, "all_head_size", size)),
        )
        return Layer(module, heads, between(outputs(mlp.Wi, width=1, blocks=2), mlp.Wo, 1))
