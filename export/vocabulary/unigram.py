"""Unigram (XLM-RoBERTa, ALBERT, DeBERTa v2/v3, T5): the pieces with the highest sum of scores.

The best of all ways to cut a text stays the best of fewer. Scores stay as they are; the piece with the lowest one stays
because the score of an unknown character is derived from it.
"""

from collections.abc import Mapping, Set
from typing import Any

from export.vocabulary.byte_pieces import byte_pieces
from export.vocabulary.characters import Characters


class Unigram:
    """See `export.vocabulary.piece_models.PieceModel`."""

    def __init__(self, model: Mapping[str, Any]) -> None:
        self._model = model
        self._scores: dict[str, float] = dict(model["vocab"])
        self.pieces: Set[str] = self._scores.keys()
        unknown = model.get("unk_id")
        self.unknown: str | None = None if unknown is None else model["vocab"][unknown][0]

    def text(self, piece: str) -> str:
        """The characters that `piece` stands for; a byte's name stands for none."""
        return "" if piece in byte_pieces(self._model) else piece

    def ancestry(self, pieces: Set[str]) -> set[str]:
        """Only `pieces` themselves: pieces are found without intermediate ones."""
        return set(pieces)

    def spelling(self, characters: Characters) -> set[str]:
        """Single characters, longer pieces with a character that has no piece of its own, bytes, the lowest score."""
        needed = {min(self._scores, key=lambda piece: self._scores[piece])}
        for piece in self.pieces:
            text = self.text(piece)
            alone = len(text) == 1 or any(character not in self.pieces for character in text)
            if text and alone and all(characters.stays(character) for character in text):
                needed.add(piece)
        return needed | (byte_pieces(self._model) & self.pieces)

    def cut(self, numbers: Mapping[str, int]) -> dict[str, Any]:
        """The model of a tokenizer.json with only the pieces in `numbers` (piece → new number)."""
        kept = sorted(self.pieces & numbers.keys(), key=lambda piece: numbers[piece])
        return {
            **self._model,
            "vocab": [[piece, self._scores[piece]] for piece in kept],
            "unk_id": None if self.unknown is None else numbers[self.unknown],
        }
