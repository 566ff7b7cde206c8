"""What pruning has to know of a tokenizer's model; one file each, one line here."""

from collections.abc import Callable, Mapping, Set
from typing import Any, Protocol

from export.vocabulary.bpe import BPE
from export.vocabulary.characters import Characters
from export.vocabulary.unigram import Unigram
from export.vocabulary.wordlevel import WordLevel
from export.vocabulary.wordpiece import WordPiece


class PieceModel(Protocol):
    """The `model` of a tokenizer.json, seen as a set of pieces."""

    pieces: Set[str]
    unknown: str | None
    """The piece that stands for what can't be spelled."""

    def text(self, piece: str) -> str:
        """The characters that `piece` stands for."""

    def ancestry(self, pieces: Set[str]) -> set[str]:
        """`pieces`, and those without which the model could not arrive at them."""

    def spelling(self, characters: Characters) -> set[str]:
        """The pieces that keep every text spelled that was, except for characters that don't stay."""

    def cut(self, numbers: Mapping[str, int]) -> dict[str, Any]:
        """The model with only the pieces in `numbers`, which maps them to their new numbers, in order."""


PIECE_MODELS: dict[str, Callable[[Mapping[str, Any]], PieceModel]] = {
    "BPE": BPE,
    "Unigram": Unigram,
    "WordLevel": WordLevel,
    "WordPiece": WordPiece,
}
