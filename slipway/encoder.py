"""Texts to token numbers, exactly as in training; what becomes of a text that is longer than the model takes.

Truncation keeps the beginning, as training did. Windows read on: the tokens are cut into pieces of the model's length
that share `stride` tokens with the piece before, so that no word is without its surroundings. At most `most` of them
are run, the first ones; a text that goes on beyond is truncated, and says so.

Tokenizing a megabyte takes a second, during which a server's instance answers nobody, and all but the first tokens are
thrown away. So only the beginning of a huge text is tokenized. A tokenizer splits into words first, so a cut changes no
token but those of the word it is in; the beginning is taken only if at least a whole window of tokens lies between the
last that is kept and the cut, otherwise a longer one is tried.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from slipway.bundle import Tokenization
from slipway.errors import ServingError

IntArray = npt.NDArray[np.int64]

_CHARACTERS_PER_TOKEN = 8
"""How much of a huge text is tried first: English has 4 to 5 a token, Chinese 1 to 2."""
_GROWTH = 8


@dataclass(frozen=True)
class Windows:
    """How many pieces of a long text are run, and how many tokens each shares with the one before it."""

    most: int = 1
    stride: int = 0


BEGINNING = Windows()
"""One window: the text is truncated."""


@dataclass(frozen=True, slots=True)
class TokenRow:
    """A text as the model takes it."""

    windows: tuple[Any, ...]
    """`tokenizers.Encoding` of each; one, unless a long text is cut into several."""
    new_tokens: tuple[int, ...]
    """Tokens of the text, special ones aside, that a window has and the one before it hasn't."""
    tokens: int
    """Of the whole text, special ones included; of a huge text only a lower bound."""
    truncated: bool
    """Whether there are tokens in no window."""


class Encoder:
    """Texts to padded token numbers.

    Token counts are rounded up to a multiple of `pad_to_multiple_of`, but not beyond what the model takes. Raises
    `ServingError` if windows would not move on.
    """

    def __init__(
        self,
        tokenizer_file: Path,
        tokenization: Tokenization,
        *,
        pad_to_multiple_of: int = 1,
        windows: Windows = BEGINNING,
    ) -> None:
        from tokenizers import Tokenizer

        self._tokenizer = Tokenizer.from_file(str(tokenizer_file))
        self._special = self._tokenizer.num_special_tokens_to_add(is_pair=False)
        room = tokenization.max_tokens - self._special
        if windows.stride >= room:
            raise ServingError(
                f"window_stride is {windows.stride}, but a window has room for {room} tokens of the text; "
                f"choose at most {room - 1}, a quarter of it is usual."
            )
        # A tokenizer.json may carry a padding and a truncation of its own (all-MiniLM's pads to 128).
        self._tokenizer.enable_truncation(max_length=tokenization.max_tokens, stride=windows.stride)
        self._tokenizer.no_padding()
        self._tokenization = tokenization
        self._multiple = pad_to_multiple_of
        self._windows = windows
        step = room - windows.stride
        kept = room + (windows.most - 1) * step
        self._longest = _CHARACTERS_PER_TOKEN * (kept + 2 * room)
        self._enough = windows.most + -(-room // step)
        """Windows after the first that a beginning must have to stand for the whole text."""

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of what `__call__` gives."""
        return tuple(self._tokenization.inputs)

    @property
    def max_tokens(self) -> int:
        """What the model takes."""
        return self._tokenization.max_tokens

    def __call__(self, texts: Sequence[str]) -> dict[str, IntArray]:
        """`{input: int64 [batch, tokens]}`, padded to the longest of `texts`."""
        return self.pad(self.tokenize(texts))

    def tokenize(self, texts: Sequence[str]) -> list[Any]:
        """`tokenizers.Encoding` of each text, not padded; the windows after the first are its `overflowing`."""
        short = [text if len(text) <= self._longest else None for text in texts]
        if None not in short:
            # Not `encode_batch`, which keeps where in the text each token was: 30 µs instead of 25 for 24 tokens.
            encodings: list[Any] = self._tokenizer.encode_batch_fast(texts)
            return encodings
        quick = iter(self._tokenizer.encode_batch_fast([text for text in short if text is not None]))
        return [
            self._beginning(text) if known is None else next(quick) for text, known in zip(texts, short, strict=True)
        ]

    def rows(self, texts: Sequence[str]) -> list[TokenRow]:
        """Each text as the model takes it."""
        return [self._row(encoding) for encoding in self.tokenize(texts)]

    def padded_length(self, tokens: int) -> int:
        """Length of the row that so many tokens get."""
        return max(tokens, min(self._tokenization.max_tokens, -(-tokens // self._multiple) * self._multiple))

    def pad(self, encodings: Sequence[Any]) -> dict[str, IntArray]:
        """`{input: int64 [batch, tokens]}` of what `tokenize` gave."""
        tokens = self.padded_length(max(len(encoding) for encoding in encodings))
        columns = {
            "input_ids": ("ids", self._tokenization.pad_id),
            "attention_mask": ("attention_mask", 0),
            "token_type_ids": ("type_ids", self._tokenization.pad_type_id),
        }
        batch: dict[str, IntArray] = {}
        for name in self._tokenization.inputs:
            attribute, filling = columns[name]
            batch[name] = np.full((len(encodings), tokens), filling, dtype=np.int64)
            for row, encoding in enumerate(encodings):
                batch[name][row, : len(encoding)] = getattr(encoding, attribute)
        return batch

    def _row(self, encoding: Any) -> TokenRow:
        first = len(encoding)
        # What fits has nothing over; asking the library for it costs more than this comparison.
        following = encoding.overflowing if first >= self._tokenization.max_tokens else ()
        if not following:
            return TokenRow((encoding,), (first - self._special,), first, truncated=False)
        most, shared = self._windows.most, self._special + self._windows.stride
        new = [first - self._special, *(len(window) - shared for window in following)]
        return TokenRow(
            (encoding, *following[: most - 1]),
            tuple(new[:most]),
            sum(new) + self._special,
            truncated=len(new) > most,
        )

    def _beginning(self, text: str) -> Any:
        """The encoding of a huge text's beginning, if that decides every token which is kept; else of all of it."""
        length = self._longest
        while length < len(text):
            beginning = text[:length]
            word_end = beginning.rfind(" ")
            beginning = beginning[:word_end] if word_end > length // 2 else beginning
            encoding = self._tokenizer.encode(beginning)
            if len(encoding.overflowing) >= self._enough:
                return encoding
            length *= _GROWTH
        return self._tokenizer.encode(text)
