"""A small randomly initialised classifier of every family that the export supports.

Every weight is drawn anew, biases and normalization gains included: `transformers` initializes them to zeros and ones,
under which a bias added twice, or a gain left out, changes nothing.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from slipway.engines import openvino

PAD = {"roberta": 1, "xlm-roberta": 1, "camembert": 1, "mpnet": 1}
"""Token that pads, where it isn't 0. RoBERTa-like models number positions from it on."""

_VOCABULARY = 260
"""Four special tokens and the 256 bytes of UTF-8."""
_LABELS = 3
_POSITIONS = 160

_SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
_ENCODER = {**_SIZES, "max_position_embeddings": _POSITIONS}
_ROBERTA = {**_SIZES, "max_position_embeddings": _POSITIONS + 2}
_LLAMA = {**_ENCODER, "num_key_value_heads": 2}
_RELATIVE = {**_ENCODER, "relative_attention": True, "pos_att_type": ["c2p", "p2c"], "max_relative_positions": -1}

FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("bert", _ENCODER),
    "distilbert": (
        "distilbert",
        {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48, "max_position_embeddings": _POSITIONS},
    ),
    "roberta": ("roberta", _ROBERTA),
    "xlm-roberta": ("xlm-roberta", _ROBERTA),
    "camembert": ("camembert", _ROBERTA),
    "albert": ("albert", {**_ENCODER, "embedding_size": 16}),
    "electra": ("electra", {**_ENCODER, "embedding_size": 16}),
    "mpnet": ("mpnet", _ROBERTA),
    "deberta": ("deberta", {**_RELATIVE, "type_vocab_size": 0, "position_biased_input": False}),
    "deberta, absolute positions": (
        "deberta",
        {**_RELATIVE, "type_vocab_size": 2, "position_biased_input": True, "relative_attention": False},
    ),
    "deberta-v2": ("deberta-v2", {**_RELATIVE, "type_vocab_size": 2, "conv_kernel_size": 3, "conv_act": "gelu"}),
    "deberta-v3": (
        "deberta-v2",
        {
            **_RELATIVE,
            "type_vocab_size": 0,
            "position_biased_input": False,
            "position_buckets": 16,
            "share_att_key": True,
            "norm_rel_ebd": "layer_norm",
        },
    ),
    "modernbert": (
        "modernbert",
        # Three layers: the first and the last attend to everything, the middle one within a window of 16 tokens.
        {**_ENCODER, "num_hidden_layers": 3, "global_attn_every_n_layers": 2, "local_attention": 16},
    ),
    "modernbert, mean": (
        "modernbert",
        {**_ENCODER, "global_attn_every_n_layers": 2, "local_attention": 16, "classifier_pooling": "mean"},
    ),
    "gpt2": ("gpt2", {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_inner": 48, "n_positions": _POSITIONS}),
    "llama": ("llama", _LLAMA),
    "mistral": ("mistral", {**_LLAMA, "sliding_window": 16}),
    "qwen2": ("qwen2", _LLAMA),
    "qwen3": ("qwen3", {**_LLAMA, "head_dim": 8}),
}
"""Name to `model_type` and sizes."""

MAX_TOKENS = _POSITIONS
"""The longest text that each of them takes."""

Batch = dict[str, npt.NDArray[np.int64]]


def tiny_model(name: str, **overrides: Any) -> Any:
    """The classifier called `name` in `FAMILIES`, eval mode, eager attention."""
    import torch
    from transformers import AutoConfig, AutoModelForSequenceClassification

    family, sizes = FAMILIES[name]
    special = {"pad_token_id": PAD.get(family, 0), "bos_token_id": 2, "eos_token_id": 3, "cls_token_id": 2}
    config = AutoConfig.for_model(
        family,
        **{"vocab_size": _VOCABULARY, "num_labels": _LABELS, **special, "sep_token_id": 3, **sizes, **overrides},
    )
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(config, attn_implementation="eager")
    with torch.no_grad():
        for path, parameter in model.named_parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 2 * parameter.shape[-1] ** -0.5)
            else:
                parameter.normal_(1 if path.endswith("weight") else 0, 0.3)
    return model.eval()


def random_batch(model: Any, batch: int, tokens: int, inputs: list[str], *, seed: int = 0) -> Batch:
    """Random token numbers `[batch, tokens]`, padded on the right: one row is full, the others have a random length."""
    generator = np.random.default_rng(seed)
    lengths = generator.integers(1, tokens, size=batch, endpoint=True)
    lengths[generator.integers(batch)] = tokens
    return _padded(model, [generator.integers(4, _VOCABULARY, size=length) for length in lengths], inputs)


def text_batch(model: Any, texts: list[str], inputs: list[str]) -> Batch:
    """The bytes of `texts` as tokens, cut at `MAX_TOKENS` and padded to the longest."""
    return _padded(
        model, [np.array([2, *(4 + byte for byte in text.encode()), 3])[:MAX_TOKENS] for text in texts], inputs
    )


def _padded(model: Any, rows: list[npt.NDArray[np.int64]], inputs: list[str]) -> Batch:
    ids = np.full((len(rows), max(map(len, rows))), model.config.pad_token_id, dtype=np.int64)
    mask = np.zeros_like(ids)
    for number, row in enumerate(rows):
        ids[number, : len(row)] = row
        mask[number, : len(row)] = 1
    columns = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
    return {name: columns[name] for name in inputs}


def torch_logits(model: Any, batch: Batch) -> npt.NDArray[np.float32]:
    """Logits `[batch, labels]` of the PyTorch model."""
    import torch

    with torch.inference_mode():
        logits = model(**{name: torch.from_numpy(values) for name, values in batch.items()}).logits
    return np.asarray(logits.numpy(), dtype=np.float32)


Run = Callable[[Batch], npt.NDArray[np.float32]]


def onnxruntime_run(model: Any) -> Run:
    """`model` (an ONNX file) on ONNX Runtime as the server opens it."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        str(model), options, disabled_optimizers=["SkipLayerNormFusion", "BiasGeluFusion"]
    )
    return lambda batch: np.asarray(session.run(["logits"], batch)[0])


def openvino_run(model: Any) -> Run:
    """`model` (an ONNX file) on OpenVINO, in fp32."""
    compiled = openvino.runtime().compile_model(
        str(model), "CPU", {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    )
    return lambda batch: np.array(compiled(batch)["logits"])
