"""Llama and its likes: gated feed-forward, and keys and values that a group of queries shares.

A group goes as one: its key, its value and all of its queries. Cutting single queries would leave groups of different
sizes, which the model's `repeat_kv` can't express.
"""

from typing import Any, ClassVar

from slipway.anatomy.family import Family
from slipway.anatomy.units import Layer, between, outputs


class Llama(Family):
    """Llama, Mistral, Qwen2, Qwen3, Gemma, SmolLM3."""

    model_types: ClassVar[tuple[str, ...]] = ("llama", "mistral", "qwen2", "qwen3", "gemma", "smollm3")

    def holder(self, model: Any) -> tuple[Any, str]:
        """`layers`."""
        return model.base_model, "layers"

    def layer(self, module: Any) -> Layer:
        """See `Family.layer`."""
        attention, mlp = module.self_attn, module.mlp
        size = attention.head_dim
        queries = size * attention.num_key_value_groups
        projections = (
            *outputs(attention.q_proj, width=queries),
            *outputs(attention.k_proj, attention.v_proj, width=size),
        )
        heads = between(projections, attention.o_proj, queries)
        neurons = between(outputs(mlp.gate_proj, mlp.up_proj, width=1), mlp.down_proj, 1)
        return Layer(module, heads, neurons)
