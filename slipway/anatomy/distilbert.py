"""DistilBERT: as BERT, under other names. Its attention takes a head's size from `dim / n_heads`, so both shrink."""

from typing import Any, ClassVar

from slipway.anatomy.bert import feed_forward
from slipway.anatomy.family import Family
from slipway.anatomy.units import Layer, between, outputs


class DistilBert(Family):
    """DistilBERT."""

    model_types: ClassVar[tuple[str, ...]] = ("distilbert",)

    def holder(self, model: Any) -> tuple[Any, str]:
        """`transformer.layer`."""
        return model.base_model.transformer, "layer"

    def layer(self, module: Any) -> Layer:
        """See `Family.layer`."""
        attention = module.attention
        size = attention.attention_head_size
        heads = between(
            outputs(attention.q_lin, attention.k_lin, attention.v_lin, width=size),
            attention.out_lin,
            size,
            sizes=((attention, "n_heads", 1), (attention, "dim", size)),
        )
        return Layer(module, heads, feed_forward(module.ffn.lin1, module.ffn.lin2))
