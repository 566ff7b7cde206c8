"""DistilBERT: as BERT, under other names. Its attention takes a head's size from `dim / n_heads`, so both shrink."""

from typing import Any, ClassVar

from slipway.anatomy.bert import feed_forward
from slipway.anatomy.family import Family
from slipway.anatomy.units import Layer, Units, inputs, outputs


class DistilBert(Family):
    """DistilBERT."""

    model_types: ClassVar[tuple[str, ...]] = ("distilbert",)

    def holder(self, model: Any) -> tuple[Any, str]:
        """`transformer.layer`."""
        return model.base_model.transformer, "layer"

    def layers(self, model: Any) -> list[Layer]:
        """See `Family.layers`."""
        return [self._layer(module) for module in model.base_model.transformer.layer]

    def _layer(self, module: Any) -> Layer:
        attention = module.attention
        size = attention.attention_head_size
        heads = Units(
            count=attention.n_heads,
            parts=(
                *outputs(attention.q_lin, size),
                *outputs(attention.k_lin, size),
                *outputs(attention.v_lin, size),
                *inputs(attention.out_lin, size),
            ),
            gate=attention.out_lin,
            width=size,
            sizes=((attention, "n_heads", 1), (attention, "dim", size)),
        )
        return Layer(module, heads, feed_forward(module.ffn.lin1, module.ffn.lin2))
