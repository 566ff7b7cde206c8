"""What a smaller vocabulary changes on texts that it was not made from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from export.vocabulary.piece_models import PIECE_MODELS
from export.vocabulary.plan import VocabularyPlan
from export.vocabulary.tokenizer_files import read_tokenizer
from slipway.errors import ExportError

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Coverage:
    """Tokenization of the same texts before and after pruning; special tokens are not counted."""

    texts: int
    changed: float
    """Share of texts with other tokens than before."""
    tokens: float
    """Mean tokens of a text, before."""
    extra_tokens: float
    """Mean tokens that a text has more than before."""
    unknown_before: float
    """Share of unknown tokens among all, before."""
    unknown_after: float
    """The same, after."""


def coverage(tokenizer: Mapping[str, Any] | Path, plan: VocabularyPlan, texts: Sequence[str]) -> Coverage:
    """Tokenize `texts` with `tokenizer` (a tokenizer.json, parsed or as a file) and with the plan's.

    Raises `ExportError` if there are no texts or `tokenizer` can't be read.
    """
    if not texts:
        raise ExportError("there are no texts to measure the pruned vocabulary on; give it the dev split's.")
    original, old = read_tokenizer(tokenizer)
    _, new = read_tokenizer(plan.tokenizer)
    unknown = PIECE_MODELS[original["model"]["type"]](original["model"]).unknown
    number = -1 if unknown is None else old.token_to_id(unknown)
    before = _ids(old, texts)
    after = [plan.kept[ids] for ids in _ids(new, texts)]  # in old numbers
    counts = np.array([[len(ids) for ids in before], [len(ids) for ids in after]], dtype=np.int64)
    unknowns = [sum(int((ids == number).sum()) for ids in rows) for rows in (before, after)]
    return Coverage(
        texts=len(texts),
        changed=sum(not np.array_equal(*pair) for pair in zip(before, after, strict=True)) / len(texts),
        tokens=float(counts[0].mean()),
        extra_tokens=float((counts[1] - counts[0]).mean()),
        unknown_before=unknowns[0] / max(int(counts[0].sum()), 1),
        unknown_after=unknowns[1] / max(int(counts[1].sum()), 1),
    )


def _ids(tokenizer: Any, texts: Sequence[str]) -> list[IntArray]:
    encodings = tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
    return [np.array(encoding.ids, dtype=np.int64) for encoding in encodings]
