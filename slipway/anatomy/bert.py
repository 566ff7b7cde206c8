"""BERT and its likes: separate linears for queries, keys and values, one encoder layer after another.

MPNet differs in two ways: names, and one table of relative position biases `[buckets, heads]` that all layers share.
Layers that keep different heads need different columns of it, so each cut layer selects its own from the bias that
arrives. The alternative, a table for each layer, would change the family's forward pass and state dict.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

from slipway.anatomy.family import Family
from slipway.anatomy.units import Layer, Units, between, outputs


class Bert(Family):
    """BERT, RoBERTa, XLM-RoBERTa, CamemBERT, ELECTRA."""

    model_types: ClassVar[tuple[str, ...]] = ("bert", "roberta", "xlm-roberta", "camembert", "electra")

    def holder(self, model: Any) -> tuple[Any, str]:
        """`encoder.layer`."""
        return model.base_model.encoder, "layer"

    def layer(self, module: Any) -> Layer:
        """See `Family.layer`."""
        attention = module.attention.self
        size = attention.attention_head_size
        heads = between(
            outputs(attention.query, attention.key, attention.value, width=size),
            module.attention.output.dense,
            size,
            sizes=((attention, "num_attention_heads", 1), (attention, "all_head_size", size)),
        )
        return Layer(module, heads, feed_forward(module.intermediate.dense, module.output.dense))


class MPNet(Bert):
    """MPNet."""

    model_types: ClassVar[tuple[str, ...]] = ("mpnet",)

    def layer(self, module: Any) -> Layer:
        """See `Family.layer`."""
        attention = module.attention.attn
        size = attention.attention_head_size
        heads = between(
            outputs(attention.q, attention.k, attention.v, width=size),
            attention.o,
            size,
            sizes=((attention, "num_attention_heads", 1), (attention, "all_head_size", size)),
            on_keep=lambda kept: _select_bias(attention, kept),
        )
        return Layer(module, heads, feed_forward(module.intermediate.dense, module.output.dense))


def feed_forward(up: Any, down: Any) -> Units:
    """Neurons between two linears."""
    return between(outputs(up, width=1), down, 1)


def _select_bias(attention: Any, kept: Sequence[int]) -> None:
    """Let the layer take only its own heads of the shared bias, which is `[batch, heads, tokens, tokens]`."""
    if hasattr(attention, "bias_heads"):
        attention.bias_heads = [attention.bias_heads[head] for head in kept]
        return
    attention.bias_heads = list(kept)
    attention.register_forward_pre_hook(_with_own_bias)


def _with_own_bias(attention: Any, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    hidden, mask, head_mask, bias, *rest = arguments
    return (hidden, mask, head_mask, bias[:, attention.bias_heads], *rest)
