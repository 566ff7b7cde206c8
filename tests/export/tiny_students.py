"""A tiny classifier that learns within seconds, and a teacher that is sure and right."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import transformers

from export.distillation import Teacher, teach


def new_student(base: Path, seed: int = 1) -> Any:
    """A two-class model on the base in the folder `base`, its head from `seed`."""
    torch.manual_seed(seed)
    return transformers.AutoModelForSequenceClassification.from_pretrained(
        base, num_labels=2, attn_implementation="eager"
    ).eval()


def sure(targets: Sequence[int] | npt.NDArray[np.int64], states: Mapping[int, Any] | None = None) -> Teacher:
    """Answers that leave no doubt that these are the classes."""
    logits = np.where(np.eye(2)[np.asarray(targets, dtype=int)] > 0, 2.0, -2.0).astype(np.float32)
    return Teacher(logits, states or {})


def answers(model: Any, tokenizer: Any, texts: Sequence[str]) -> npt.NDArray[np.float32]:
    """Logits `[texts, 2]` in fp32."""
    return teach(model, tokenizer, texts, max_tokens=32, precision="fp32").logits
