"""Logits of many texts, fast: sorted by length, so that hardly any padding is computed."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from slipway.progress import progress


def predict_logits(
    model: Any,
    tokenizer: Any,
    texts: Sequence[str],
    *,
    max_tokens: int,
    label: str,
    bf16: bool = False,
    batch_tokens: int = 2048,
) -> npt.NDArray[np.float32]:
    """Logits `[texts, labels]` in the order of `texts`, in evaluation mode.

    A batch holds as many texts as fit into `batch_tokens` tokens with padding.
    """
    import torch

    encoded = [tokenizer(text, truncation=True, max_length=max_tokens) for text in texts]
    order = sorted(range(len(texts)), key=lambda i: len(encoded[i]["input_ids"]))
    result = np.zeros((len(texts), model.config.num_labels), dtype=np.float32)
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    with progress(label, len(texts)) as advance, torch.inference_mode():
        for rows in _batches(order, [len(e["input_ids"]) for e in encoded], batch_tokens):
            batch = tokenizer.pad([encoded[i] for i in rows], return_tensors="pt").to(device)
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                logits = model(**batch).logits
            result[rows] = logits.float().cpu().numpy()
            advance(len(rows))
    model.train(was_training)
    return result


def _batches(order: list[int], lengths: list[int], batch_tokens: int) -> list[list[int]]:
    batches: list[list[int]] = []
    for row in order:  # ascending length: the row at hand is the longest of its batch
        if batches and (len(batches[-1]) + 1) * lengths[row] <= batch_tokens:
            batches[-1].append(row)
        else:
            batches.append([row])
    return batches
