"""Which single characters stay in a pruned vocabulary, so that a word nobody saw in training is still spelled.

`all` keeps every character that the vocabulary has. The two others save rows and turn what they drop into the unknown
token (or its bytes, where the tokenizer falls back to those): `seen-scripts` drops letters of scripts of which the
training texts have no letter, `seen` drops every character outside ASCII that the training texts don't have.
"""

import unicodedata
from collections.abc import Set
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, get_args

from slipway.errors import ExportError

CharacterRule = Literal["all", "seen-scripts", "seen"]


@dataclass(frozen=True)
class Characters:
    """Answers about one character of a tokenizer: does it stay, and can it continue a word."""

    rule: CharacterRule
    seen: Set[str]
    tokenizer: Any
    """The `tokenizers.Tokenizer` before pruning: its normalizer and pre-tokenizer decide where words end."""
    bytewise: bool
    """The tokenizer's characters stand for bytes, all of which have to stay."""

    def __post_init__(self) -> None:
        if self.rule not in get_args(CharacterRule):
            raise ExportError(f"characters is {self.rule!r}; allowed: {', '.join(get_args(CharacterRule))}.")

    def stays(self, character: str) -> bool:
        """Whether the piece that is this one character is kept although no training text may use it."""
        if self.rule == "all" or self.bytewise or character.isascii() or character in self.seen:
            return True
        return self.rule == "seen-scripts" and (script(character) or "") in self._scripts

    def continues(self, character: str) -> bool:
        """Whether this character can stand inside a word behind another.

        BERT's pre-tokenizer makes a word of every Chinese character and every punctuation mark, so their `##`
        pieces, a third of a Chinese vocabulary, can never be used. It is tried out, not read from the type.
        """
        probe = f"a{character}a{character}{character}"
        if self.tokenizer.normalizer is not None:
            probe = self.tokenizer.normalizer.normalize_str(probe)
        words = [probe]
        if self.tokenizer.pre_tokenizer is not None:
            words = [word for word, _ in self.tokenizer.pre_tokenizer.pre_tokenize_str(probe)]
        holding = [word for word in words if character in word]
        # A normalizer that composed it with its neighbours says nothing about others.
        return not holding or any(word != character for word in holding)

    @cached_property
    def _scripts(self) -> Set[str]:
        return {script(character) or "" for character in self.seen} | {""}


def script(character: str) -> str | None:
    """The script of a letter or mark: the first word of its Unicode name (`LATIN`, `CJK`, …); None for anything else.

    The Unicode script property would be exact, but Python doesn't have it; the name differs from it only in details
    (fullwidth letters, modifiers) that are then scripts of their own.
    """
    if unicodedata.category(character)[0] not in "LM":
        return None
    return unicodedata.name(character, "UNNAMED").split(" ")[0]


def is_bytewise(tokenizer: Any) -> bool:
    """Whether a tokenizer.json (or a part of it) maps bytes to characters before its model sees them."""
    if isinstance(tokenizer, dict):
        if tokenizer.get("type") == "ByteLevel":
            return True
        return any(is_bytewise(tokenizer.get(part)) for part in ("normalizer", "pre_tokenizer")) or any(
            is_bytewise(step) for part in ("normalizers", "pretokenizers") for step in tokenizer.get(part) or ()
        )
    return False
