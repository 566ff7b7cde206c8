"""WordPiece (BERT, DistilBERT, ELECTRA, MPNet): the longest piece that fits, from the left.

A word is unchanged by pruning if its pieces stay: at each place the longest piece of all was chosen, and among fewer it
is still the longest. Any other word is spelled by shorter pieces, down to `c` and `##c`.
"""

from collections.abc import Mapping, Set
from typing import Any

from export.vocabulary.characters import Characters


class WordPiece:
    """See `export.vocabulary.piece_models.PieceModel`."""

    def __init__(self, model: Mapping[str, Any]) -> None:
        self._model = model
        self._prefix: str = model.get("continuing_subword_prefix") or ""
        self.pieces: Set[str] = model["vocab"].keys()
        self.unknown: str | None = model.get("unk_token")

    def text(self, piece: str) -> str:
        """The characters that `piece` stands for."""
        return piece.removeprefix(self._prefix)

    def ancestry(self, pieces: Set[str]) -> set[str]:
        """Only `pieces` themselves: pieces are found without intermediate ones."""
        return set(pieces)

    def spelling(self, characters: Characters) -> set[str]:
        """`c` and `##c` of each character that stays; longer pieces if one of theirs has no such piece."""
        continuing = {
            character: characters.continues(character)
            for character in {character for piece in self.pieces for character in self.text(piece)}
            if characters.stays(character)
        }
        needed = set()
        for piece in self.pieces:
            text = self.text(piece)
            starts_word = not self._prefix or not piece.startswith(self._prefix)
            # (character, the piece that it is when it stands there, whether a word can have it there)
            places = [
                (character, character, True)
                if starts_word and place == 0
                else (character, self._prefix + character, continuing.get(character, False))
                for place, character in enumerate(text)
            ]
            if not all(character in continuing and possible for character, _, possible in places):
                continue
            if len(text) == 1 or any(alone not in self.pieces for _, alone, _ in places):
                needed.add(piece)
        return needed

    def cut(self, numbers: Mapping[str, int]) -> dict[str, Any]:
        """The model of a tokenizer.json with only the pieces in `numbers` (piece → new number)."""
        return {**self._model, "vocab": {piece: number for piece, number in numbers.items() if piece in self.pieces}}
