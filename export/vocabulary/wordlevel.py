"""WordLevel: one token a word, nothing to spell others with.

A word that no training text has becomes the unknown token, also where the original knew it: this is the one model whose
pruning can lose a word. Its embedding was not touched by fine-tuning, but may have meant something from pre-training.
"""

from collections.abc import Mapping, Set
from typing import Any

from export.vocabulary.characters import Characters


class WordLevel:
    """See `export.vocabulary.piece_models.PieceModel`."""

    def __init__(self, model: Mapping[str, Any]) -> None:
        self._model = model
        self.pieces: Set[str] = model["vocab"].keys()
        self.unknown: str | None = model.get("unk_token")

    def text(self, piece: str) -> str:
        """The piece is its text."""
        return piece

    def ancestry(self, pieces: Set[str]) -> set[str]:
        """Only `pieces` themselves: words are looked up whole."""
        return set(pieces)

    def spelling(self, characters: Characters) -> set[str]:
        """Words of one character: all there is in vocabularies of characters."""
        return {piece for piece in self.pieces if len(piece) == 1 and characters.stays(piece)}

    def cut(self, numbers: Mapping[str, int]) -> dict[str, Any]:
        """The model of a tokenizer.json with only the pieces in `numbers` (piece → new number)."""
        return {**self._model, "vocab": {piece: number for piece, number in numbers.items() if piece in self.pieces}}
