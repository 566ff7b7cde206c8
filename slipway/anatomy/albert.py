"""ALBERT: a few layers' weights, run many times.

What can be listed are the distinct layers (one, in every published checkpoint). A cut in one shrinks each of its
runs; a layer can't be taken out, but the number of runs can fall, by as many for each group.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

from slipway.anatomy.bert import feed_forward
from slipway.anatomy.family import Family, Kept, configs
from slipway.anatomy.units import Layer, between, outputs
from slipway.errors import ExportError


class Albert(Family):
    """ALBERT."""

    model_types: ClassVar[tuple[str, ...]] = ("albert",)
    shares_layers: ClassVar[bool] = True

    def holder(self, model: Any) -> tuple[Any, str]:
        """`encoder.albert_layer_groups`."""
        return model.base_model.encoder, "albert_layer_groups"

    def layers(self, model: Any) -> list[Layer]:
        """The distinct layers, group by group; see `Family.layers`."""
        repeats, rest = divmod(model.config.num_hidden_layers, model.config.num_hidden_groups)
        if rest:
            raise ExportError(
                f"an ALBERT of {model.config.num_hidden_layers} layers in {model.config.num_hidden_groups} groups "
                "can't be pruned: its groups don't run equally often."
            )
        groups = model.base_model.encoder.albert_layer_groups
        return [replace(self.layer(module), repeats=repeats) for group in groups for module in group.albert_layers]

    def layer(self, module: Any) -> Layer:
        """See `Family.layer`."""
        attention = module.attention
        size = attention.attention_head_size
        heads = between(
            outputs(attention.query, attention.key, attention.value, width=size),
            attention.dense,
            size,
            sizes=((attention, "num_attention_heads", 1), (attention, "all_head_size", size)),
        )
        return Layer(module, heads, feed_forward(module.ffn, module.ffn_output))

    def required_layers(self, config: Any) -> frozenset[int]:
        """All of them."""
        return frozenset(range(config.num_hidden_groups * config.inner_group_num))

    def keep(self, model: Any, kept: Sequence[Kept]) -> None:
        """See `Family.keep`; the runs of every layer must be as many."""
        least = model.config.inner_group_num
        if kept[0].repeats < least:
            # transformers passes each group a mask for `repeats` layers, and its inner layers index into it.
            raise ExportError(f"the groups of this ALBERT have {least} layers and must run at least {least} times.")
        super().keep(model, kept)
        for config in configs(model):
            config.num_hidden_layers = kept[0].repeats * config.num_hidden_groups
