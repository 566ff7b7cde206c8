"""Classifiers of every family that can be pruned, small and random: hidden 32, 4 heads (2 groups of 2), 64 neurons."""

from typing import Any

_SIZES: dict[str, Any] = {
    "vocab_size": 60,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 40,
    "num_labels": 3,
    "pad_token_id": 1,
}
_GROUPED = {**_SIZES, "num_key_value_heads": 2, "head_dim": 8}
_RELATIVE = {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "type_vocab_size": 0}

CLASSIFIERS: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("bert", _SIZES),
    "roberta": ("roberta", _SIZES),
    "xlm-roberta": ("xlm-roberta", _SIZES),
    "camembert": ("camembert", _SIZES),
    "electra": ("electra", {**_SIZES, "embedding_size": 16}),
    "mpnet": ("mpnet", _SIZES),
    "distilbert": (
        "distilbert",
        {
            "vocab_size": 60,
            "dim": 32,
            "n_layers": 3,
            "n_heads": 4,
            "hidden_dim": 64,
            "max_position_embeddings": 40,
            "num_labels": 3,
            "pad_token_id": 1,
        },
    ),
    "albert": ("albert", {**_SIZES, "embedding_size": 16}),
    "albert-groups": (
        "albert",
        {**_SIZES, "embedding_size": 16, "num_hidden_layers": 8, "num_hidden_groups": 2, "inner_group_num": 2},
    ),
    "deberta": ("deberta", {**_SIZES, **_RELATIVE}),
    "deberta-v2": ("deberta-v2", {**_SIZES, **_RELATIVE, "share_att_key": False, "conv_kernel_size": 3}),
    "deberta-v3": (
        "deberta-v2",
        {**_SIZES, **_RELATIVE, "share_att_key": True, "position_buckets": 16, "norm_rel_ebd": "layer_norm"},
    ),
    "modernbert": ("modernbert", {**_SIZES, "local_attention": 4, "global_attn_every_n_layers": 2}),
    "gpt2": (
        "gpt2",
        {"vocab_size": 60, "n_embd": 32, "n_layer": 3, "n_head": 4, "n_inner": 64, "n_positions": 40}
        | {"num_labels": 3, "pad_token_id": 1},
    ),
    "llama": ("llama", _GROUPED),
    "mistral": ("mistral", _GROUPED),
    "qwen2": ("qwen2", {**_GROUPED, "use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1}),
    "qwen3": ("qwen3", _GROUPED),
    "gemma": ("gemma", _GROUPED),
    "smollm3": ("smollm3", _GROUPED),
}
"""Name → (`model_type`, values of its config)."""


def tiny_classifier(name: str, **values: Any) -> Any:
    """A random classifier with three labels, its biases not zero, not training, with eager attention."""
    import torch
    import transformers

    model_type, sizes = CLASSIFIERS[name]
    torch.manual_seed(0)
    config = transformers.CONFIG_MAPPING[model_type](**{**sizes, **values})
    model = transformers.AutoModelForSequenceClassification.from_config(config, attn_implementation="eager")
    for parameter in model.parameters():
        # Fresh models have zero biases, zero scores, and weights too small for a wrong cut to be seen.
        torch.nn.init.normal_(parameter, std=0.2) if parameter.dim() > 1 else torch.nn.init.normal_(parameter, 0.5, 0.3)
    return model.eval()


def tiny_batch(rows: int = 4, tokens: int = 12, *, seed: int = 0) -> dict[str, Any]:
    """Random `input_ids`, `attention_mask` and `labels`; later rows are shorter."""
    import torch

    torch.manual_seed(seed)
    ids = torch.randint(2, 60, (rows, tokens))
    mask = torch.ones_like(ids)
    for row in range(rows):
        mask[row, tokens - row :] = 0
    return {
        "input_ids": torch.where(mask == 1, ids, 1),
        "attention_mask": mask,
        "labels": torch.randint(0, 3, (rows,)),
    }
