"""Llama and its likes: gated feed-forward, and keys and values that a group of queries shares.

A group goes as one: its key, its value and all of its queries. Cutting single queries would leave groups of different
sizes, which the model's `repeat_kv` can't express.
"""

from typing import Any, ClassVar

from slipway.anatomy.family import Family
from slipway.anatomy.units import Layer, Units, inputs, outputs


class Llama(Family):
    """Llama, Mistral, Qwen2, Qwen3, Gemma, SmolLM3."""

    model_types: ClassVar[tuple[str, ...]] = ("llama", "mistral", "qwen2", "qwen3", "gemma", "smollm3")

    def holder(self, model: Any) -> tuple[Any, str]:
        """`layers`."""
        return model.base_model, "layers"

    def layers(self, model: Any) -> list[Layer]:
        """See `Family.layers`."""
        return [self._layer(module) for module in model.base_model.layers]

    def _layer(self, module: Any) -> Layer:
        attention, mlp = module.self_attn, module.mlp
        size = attention.head_dim
        queries = size * attention.num_key_value_groups
        heads = Units(
            count=attention.k_proj.weight.shape[0] // size,
            parts=(
                *outputs(attention.q_proj, queries),
                *outputs(attention.k_proj, size),
                *outputs(attention.v_proj, size),
                *inputs(attention.o_proj, queries),
            ),
            gate=attention.o_proj,
            width=queries,
        )
        neurons = Units(
            count=mlp.down_proj.weight.shape[1],
            parts=(*outputs(mlp.gate_proj, 1), *outputs(mlp.up_proj, 1), *inputs(mlp.down_proj, 1)),
            gate=mlp.down_proj,
            width=1,
        )
        return Layer(module, heads, neurons)
