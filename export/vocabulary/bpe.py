"""BPE (RoBERTa, GPT-2, ModernBERT, Llama): pairs of neighbours merge, the lowest rank first.

A piece can be reached only through the pieces that merge into it, so those stay, too. Which these are is found by
merging the piece's own characters: whatever word it stood in, the pairs inside it merged in this order, as a pair
across its border would have broken it. Keeping instead every merge that could give a piece (Llama's list has each way
to cut it) would keep all its substrings. Pairs whose result is gone are removed; the others keep their rank, so a word
whose pieces and their ancestry stay merges as before.
"""

from collections.abc import Iterator, Mapping, Set
from itertools import pairwise
from typing import Any

from export.vocabulary.byte_pieces import byte_pieces
from export.vocabulary.characters import Characters


class BPE:
    """See `export.vocabulary.piece_models.PieceModel`."""

    def __init__(self, model: Mapping[str, Any]) -> None:
        self._model = model
        self._prefix: str = model.get("continuing_subword_prefix") or ""
        self._suffix: str = model.get("end_of_word_suffix") or ""
        self.pieces: Set[str] = model["vocab"].keys()
        self.unknown: str | None = model.get("unk_token")
        self._ranks = {tuple(pair): rank for rank, pair in enumerate(model["merges"])}

    def text(self, piece: str) -> str:
        """The characters that `piece` stands for; a byte's name stands for none."""
        if piece in byte_pieces(self._model):
            return ""
        return piece.removeprefix(self._prefix).removesuffix(self._suffix)

    def ancestry(self, pieces: Set[str]) -> set[str]:
        """`pieces` and those that merge, step by step, into them."""
        return set(pieces) | {
            ancestor for piece in pieces for symbols in self._spellings(piece) for ancestor in self._merge(symbols)
        }

    def spelling(self, characters: Characters) -> set[str]:
        """What words are before the first merge: single characters, and bytes where the model falls back to them."""
        single = {
            piece for piece in self.pieces for text in [self.text(piece)] if len(text) == 1 and characters.stays(text)
        }
        return single | (byte_pieces(self._model) & self.pieces)

    def cut(self, numbers: Mapping[str, int]) -> dict[str, Any]:
        """The model of a tokenizer.json with only the pieces in `numbers` (piece → new number)."""
        kept = {piece: number for piece, number in numbers.items() if piece in self.pieces}
        merges = [
            [left, right]
            for left, right in self._model["merges"]
            if left in kept and right in kept and self._joined(left, right) in kept
        ]
        return {**self._model, "vocab": kept, "merges": merges}

    def _joined(self, left: str, right: str) -> str:
        return left + right.removeprefix(self._prefix)

    def _spellings(self, piece: str) -> Iterator[list[str]]:
        """The symbols that `piece` starts from; more than one way if its text may look like a prefix or suffix."""
        starts = [("", piece)]
        if self._prefix and piece.startswith(self._prefix):
            starts.append((self._prefix, piece.removeprefix(self._prefix)))
        for first, text in starts:
            yield self._symbols(first, text, "")
            if self._suffix and text.endswith(self._suffix):
                yield self._symbols(first, text.removesuffix(self._suffix), self._suffix)

    def _symbols(self, first: str, text: str, last: str) -> list[str]:
        return [
            (first if place == 0 else self._prefix) + character + (last if place == len(text) - 1 else "")
            for place, character in enumerate(text)
        ]

    def _merge(self, symbols: list[str]) -> set[str]:
        met = set(symbols)
        symbols = list(symbols)
        while len(symbols) > 1:
            ranks = [self._ranks.get(pair, len(self._ranks)) for pair in pairwise(symbols)]
            lowest = min(ranks)
            if lowest == len(self._ranks):
                break
            place = ranks.index(lowest)
            symbols[place : place + 2] = [self._joined(symbols[place], symbols[place + 1])]
            met.add(symbols[place])
        return met
