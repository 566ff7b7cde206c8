"""The model that the peers serve: transformers in eager PyTorch, without `pipeline`, which costs a millisecond more.

Imported by the peers in environments of their own, where Slipway isn't installed.
"""

from collections.abc import Callable

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

MAX_TOKENS = 128


def load_eager(checkpoint: str) -> Callable[[list[str]], list[dict[str, object]]]:
    """A function from texts to labels with scores, on one thread of PyTorch's."""
    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    model = AutoModelForSequenceClassification.from_pretrained(checkpoint).eval()

    def classify(texts: list[str]) -> list[dict[str, object]]:
        batch = tokenizer(texts, truncation=True, max_length=MAX_TOKENS, padding=True, return_tensors="pt")
        with torch.inference_mode():
            best = model(**batch).logits.softmax(1).max(1)
        return [
            {"label": model.config.id2label[int(label)], "score": float(score)}
            for label, score in zip(best.indices, best.values, strict=True)
        ]

    return classify
