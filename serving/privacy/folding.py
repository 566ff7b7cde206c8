"""One spelling for the many ways to write a digit, a dash or a space, with the way back to the original.

A phone number in full-width digits, with a soft hyphen or a zero-width space inside, is the same number to a reader.
The patterns see the folded text only; what they find is masked in the original, at the place that `origin` tells.
"""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Folded:
    """A text to search, and for each of its characters the place of the original's."""

    text: str
    origin: Sequence[int]
    length: int
    """Of the original."""

    def span(self, start: int, end: int) -> tuple[int, int]:
        """The part of the original that `text[start:end]` came from."""
        return self.origin[start], self.origin[end - 1] + 1


class _Folding(dict[int, str | None]):
    """Code point → what it is folded to (one character, or None for nothing), filled as characters are met."""

    def __missing__(self, code: int) -> str | None:
        self[code] = folded = _fold_character(chr(code))
        return folded


def _fold_character(character: str) -> str | None:
    category = unicodedata.category(character)
    # Format characters (zero-width, direction, soft hyphen) and variation selectors are not seen.
    if category == "Cf" or unicodedata.name(character, "").startswith("VARIATION SELECTOR"):
        return None
    # These end a sentence, or a part of one, whatever is before them.
    if character in "，。；！？、":
        return character
    if category == "Zs":
        return " "
    if category == "Pd" or character in "−﹣":
        return "-"
    digit = unicodedata.decimal(character, None)
    if digit is not None:
        return str(digit)
    compatible = unicodedata.normalize("NFKC", character)
    return compatible if len(compatible) == 1 else character


_FOLDING = _Folding()


def fold(text: str) -> Folded:
    """`text` as the patterns want it."""
    if text.isascii():
        return Folded(text, range(len(text)), len(text))
    folded = text.translate(_FOLDING)
    if len(folded) == len(text):
        return Folded(folded, range(len(text)), len(text))
    origin = [place for place, character in enumerate(text) if _FOLDING[ord(character)] is not None]
    return Folded(folded, origin, len(text))
