"""DeBERTa and DeBERTa v2 / v3: attention that scores content against relative positions.

The positions have projections of their own, head by head, which are cut along; where `share_att_key` is set, they are
those of queries and keys. They run once for each relative position and not once for each token, so they don't
count towards a head's cost per token.

DeBERTa's first version packs queries, keys and values head by head and keeps their biases as bare parameters. Where it
mixes its heads ("talking heads"), no head can be cut. DeBERTa v2 may have a convolution beside its first layer, which
then has to stay.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

from slipway.anatomy.bert import feed_forward
from slipway.anatomy.family import Family
from slipway.anatomy.units import Layer, Part, between, outputs


class DebertaV2(Family):
    """DeBERTa v2 and v3."""

    model_types: ClassVar[tuple[str, ...]] = ("deberta-v2",)

    def holder(self, model: Any) -> tuple[Any, str]:
        """`encoder.layer`."""
        return model.base_model.encoder, "layer"

    def required_layers(self, config: Any) -> frozenset[int]:
        """The first layer, if it has a convolution beside it."""
        return frozenset({0}) if getattr(config, "conv_kernel_size", 0) > 0 else frozenset()

    def layer(self, module: Any) -> Layer:
        """See `Family.layer`."""
        attention = module.attention.self
        size = attention.attention_head_size
        projections = outputs(attention.query_proj, attention.key_proj, attention.value_proj, width=size)
        return _layer(module, (*projections, *_positions(attention, "pos_key_proj", "pos_query_proj")))


class Deberta(DebertaV2):
    """The first DeBERTa."""

    model_types: ClassVar[tuple[str, ...]] = ("deberta",)

    def required_layers(self, config: Any) -> frozenset[int]:
        """None."""
        del config
        return frozenset()

    def layer(self, module: Any) -> Layer:
        """See `Family.layer`."""
        attention = module.attention.self
        size = attention.attention_head_size
        packed = (
            *outputs(attention.in_proj, width=3 * size),
            Part(attention, "q_bias", 0, size),
            Part(attention, "v_bias", 0, size),
        )
        fixed = "its heads are mixed with one another (talking heads)" if attention.talking_head else ""
        return _layer(module, (*packed, *_positions(attention, "pos_proj", "pos_q_proj")), fixed)


def _layer(module: Any, projections: Sequence[Part], fixed: str = "") -> Layer:
    attention = module.attention.self
    size = attention.attention_head_size
    heads = between(
        projections,
        module.attention.output.dense,
        size,
        sizes=((attention, "num_attention_heads", 1), (attention, "all_head_size", size)),
        fixed=fixed,
    )
    return Layer(module, heads, feed_forward(module.intermediate.dense, module.output.dense))


def _positions(attention: Any, *names: str) -> tuple[Part, ...]:
    """Those of the projections of relative positions that this model has."""
    present = [getattr(attention, name) for name in names if hasattr(attention, name)]
    return outputs(*present, width=attention.attention_head_size, per_token=False)
