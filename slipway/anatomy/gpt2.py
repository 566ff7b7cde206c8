"""GPT-2: transposed linears (`Conv1D`), queries, keys and values stacked in one.

Where scores are divided by the layer's number (`scale_attn_by_inverse_layer_idx`), that number is also the layer's slot
in the cache, so no layer can be taken out there.
"""

from typing import Any, ClassVar

from slipway.anatomy.family import Family
from slipway.anatomy.units import Layer, between, outputs


class GPT2(Family):
    """GPT-2."""

    model_types: ClassVar[tuple[str, ...]] = ("gpt2",)

    def holder(self, model: Any) -> tuple[Any, str]:
        """`h`."""
        return model.base_model, "h"

    def required_layers(self, config: Any) -> frozenset[int]:
        """None, or all where scores are divided by the layer's number."""
        return frozenset(range(config.num_hidden_layers)) if config.scale_attn_by_inverse_layer_idx else frozenset()

    def layer(self, module: Any) -> Layer:
        """See `Family.layer`."""
        attention, mlp = module.attn, module.mlp
        size = attention.head_dim
        heads = between(
            outputs(attention.c_attn, width=size, blocks=3),
            attention.c_proj,
            size,
            sizes=((attention, "num_heads", 1), (attention, "split_size", size)),
        )
        return Layer(module, heads, between(outputs(mlp.c_fc, width=1), mlp.c_proj, 1))
