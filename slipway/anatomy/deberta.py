"""DeBERTa and DeBERTa v2 / v3: attention that scores content against relative positions.

The positions have projections of their own, head by head, which are cut along; where `share_att_key` is set, they are
those of queries and keys. They run once for each relative position and not once for each token, so they don't
count towards a head's cost per token.

DeBERTa's first version packs queries, keys and values head by head and keeps their biases as bare parameters. Where it
mixes its heads ("talking heads"), no head can be cut. DeBERTa v2 may have a convolution beside its first layer, which
then has to stay.
"""

from typing import Any, ClassVar

from slipway.anatomy.bert import feed_forward
from slipway.anatomy.family import Family
from slipway.anatomy.units import Layer, Part, Units, inputs, outputs


class DebertaV2(Family):
    """DeBERTa v2 and v3."""

    model_types: ClassVar[tuple[str, ...]] = ("deberta-v2",)

    def holder(self, model: Any) -> tuple[Any, str]:
        """`encoder.layer`."""
        return model.base_model.encoder, "layer"

    def layers(self, model: Any) -> list[Layer]:
        """See `Family.layers`."""
        return [self._layer(module) for module in model.base_model.encoder.layer]

    def required_layers(self, config: Any) -> frozenset[int]:
        """The first layer, if it has a convolution beside it."""
        return frozenset({0}) if getattr(config, "conv_kernel_size", 0) > 0 else frozenset()

    def _layer(self, module: Any) -> Layer:
        attention, out = module.attention.self, module.attention.output.dense
        size = attention.attention_head_size
        positions = _present(attention, "pos_key_proj", "pos_query_proj")
        heads = Units(
            count=attention.num_attention_heads,
            parts=(
                *outputs(attention.query_proj, size),
                *outputs(attention.key_proj, size),
                *outputs(attention.value_proj, size),
                *(part for linear in positions for part in outputs(linear, size, per_token=False)),
                *inputs(out, size),
            ),
            gate=out,
            width=size,
            sizes=((attention, "num_attention_heads", 1), (attention, "all_head_size", size)),
        )
        return Layer(module, heads, feed_forward(module.intermediate.dense, module.output.dense))


class Deberta(DebertaV2):
    """The first DeBERTa."""

    model_types: ClassVar[tuple[str, ...]] = ("deberta",)

    def required_layers(self, config: Any) -> frozenset[int]:
        """None."""
        del config
        return frozenset()

    def _layer(self, module: Any) -> Layer:
        attention, out = module.attention.self, module.attention.output.dense
        size = attention.attention_head_size
        positions = _present(attention, "pos_proj", "pos_q_proj")
        heads = Units(
            count=attention.num_attention_heads,
            parts=(
                *outputs(attention.in_proj, 3 * size),
                Part(attention, "q_bias", 0, size),
                Part(attention, "v_bias", 0, size),
                *(part for linear in positions for part in outputs(linear, size, per_token=False)),
                *inputs(out, size),
            ),
            gate=out,
            width=size,
            sizes=((attention, "num_attention_heads", 1), (attention, "all_head_size", size)),
            fixed="its heads are mixed with one another (talking heads)" if attention.talking_head else "",
        )
        return Layer(module, heads, feed_forward(module.intermediate.dense, module.output.dense))


def _present(attention: Any, *names: str) -> list[Any]:
    return [getattr(attention, name) for name in names if hasattr(attention, name)]
