"""Texts as padded batches of similar length, tokenized once.

Batches of random texts are padded to the longest of 32: at a mean of 25 tokens 40 % of all tokens are padding. Batches
from texts sorted by length have next to none, but would show the same neighbours in every epoch; so training shuffles,
sorts within pools of 50 batches and shuffles the batches (as `group_by_length` of transformers does), which leaves
about 3 %. Inference has no such care and takes texts by length, as many as fit a budget of tokens.

Rows are kept as int32 arrays and padded when they are used: `tokenizer.pad` takes longer (1 ms a batch) than to copy.
Padding is on the right for all families. Decoders too read positions from the left, and their heads look for the last
token that is not padding.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from slipway.errors import ExportError
from slipway.inputs import taken_by

_POOL_BATCHES = 50


@dataclass(frozen=True)
class Tokens:
    """Tokenized texts: for every text its ids and, if the model takes them, its token types.

    `rows[name][text]` is int32 [tokens]; `lengths` int64 [texts].
    """

    rows: dict[str, list[npt.NDArray[np.int32]]]
    lengths: npt.NDArray[np.int64]
    pad_id: int

    def batch(self, texts: npt.NDArray[np.int64], device: Any = "cpu") -> dict[str, Any]:
        """The texts of these numbers as int64 tensors [len(texts), longest of them], with their attention mask."""
        import torch

        longest = int(self.lengths[texts].max())
        mask = np.arange(longest) < self.lengths[texts, None]
        batch = {"attention_mask": torch.from_numpy(mask.astype(np.int64)).to(device)}
        for name, rows in self.rows.items():
            padded = np.full(mask.shape, self.pad_id if name == "input_ids" else 0, dtype=np.int64)
            padded[mask] = np.concatenate([rows[text] for text in texts])
            batch[name] = torch.from_numpy(padded).to(device)
        return batch


def tokenize(model: Any, tokenizer: Any, texts: Sequence[str], max_tokens: int) -> Tokens:
    """Tokenize `texts`, cut to `max_tokens`, into what `model.forward` takes.

    Raises `ExportError` if there is no text, or one has no token.
    """
    if not texts:
        raise ExportError("there are no texts to learn from; the checkpoint's data/train.parquet is empty")
    encoded = taken_by(model, tokenizer(list(texts), truncation=True, max_length=max_tokens, padding=False))
    names = [name for name in ("input_ids", "token_type_ids") if name in encoded]
    rows: dict[str, list[npt.NDArray[np.int32]]] = {
        name: [np.asarray(row, dtype=np.int32) for row in encoded[name]] for name in names
    }
    lengths = np.array([len(row) for row in rows["input_ids"]], dtype=np.int64)
    if not lengths.all():
        raise ExportError(f"text {int(lengths.argmin())} has no tokens; leave empty texts out of the data")
    return Tokens(rows, lengths, pad_id=tokenizer.pad_token_id or 0)


def by_budget(lengths: npt.NDArray[np.int64], tokens: int) -> Iterator[npt.NDArray[np.int64]]:
    """Numbers of texts, longest first, in batches of at most `tokens` padded tokens (or of a single text)."""
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        size = max(1, tokens // int(lengths[order[start]]))
        yield order[start : start + size]
        start += size


def shuffled(lengths: npt.NDArray[np.int64], size: int, generator: np.random.Generator) -> list[npt.NDArray[np.int64]]:
    """An epoch: numbers of all texts in batches of `size` (the last one may be smaller), of similar length.

    Every text is in exactly one batch. The order depends on `generator` alone.
    """
    order = generator.permutation(len(lengths))
    pool = size * _POOL_BATCHES
    batches: list[npt.NDArray[np.int64]] = []
    for start in range(0, len(order), pool):
        part = order[start : start + pool]
        part = part[np.argsort(-lengths[part], kind="stable")]
        batches.extend(part[begin : begin + size] for begin in range(0, len(part), size))
    return [batches[number] for number in generator.permutation(len(batches))]
