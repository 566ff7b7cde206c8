"""Text to label with nothing but a bundle's files: tokenizer, engine, decoding.

Export computes the bundle's expected answers with this class and the server answers with it, so the two can't drift.

Dynamic int8 quantization takes the range of the activations over the whole batch, so a row's logits would depend on its
neighbours and its padding, and a request's answer on what it was batched with. Two ways out: static ranges (calibrated;
costs accuracy on transformers unless outliers are handled) or one row at a time. One row at a time is what a target
marked `batch_invariant: false` gets; on a CPU a batch of short texts is compute-bound anyway, and no padding is run.

Other models get batches of texts of similar length. A batch of eight was 1.4 to 1.6 times as fast per text as one at a
time (OpenVINO int8, ONNX Runtime fp32; 32 tokens), so a text joins a longer one only if less than a fifth is padding.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from slipway.bundle import TOKENIZER, BundleSpec, Target, Tokenization
from slipway.engines import open_session
from slipway.tasks import get_task

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]

_MAX_BATCH_TOKENS = 4096
"""Rows × tokens of a batch: 32 texts of 128 tokens. More gained nothing and costs memory."""
_MAX_BATCH = 64
_LEAST_FILLED = 0.8
"""A text joins a batch of longer ones if at least this share of its row is not padding."""
_CHARACTERS_PER_TOKEN = 64
"""A text with more characters than this for each token that is kept is cut before it is tokenized."""


@dataclass(frozen=True)
class Prediction:
    """Answers for a list of texts, row by row."""

    labels: list[str]
    scores: FloatArray
    """`[texts]`, probability of the label."""
    logits: FloatArray
    """`[texts, labels]`, before the temperature."""


class Encoder:
    """Texts to padded token numbers, exactly as in training.

    Token counts are rounded up to a multiple of `pad_to_multiple_of`, but not beyond what the model takes.
    """

    def __init__(self, tokenizer_file: Path, tokenization: Tokenization, *, pad_to_multiple_of: int = 1) -> None:
        from tokenizers import Tokenizer

        self._tokenizer = Tokenizer.from_file(str(tokenizer_file))
        # A tokenizer.json may carry a padding and a truncation of its own (all-MiniLM's pads to 128).
        self._tokenizer.enable_truncation(max_length=tokenization.max_tokens)
        self._tokenizer.no_padding()
        self._tokenization = tokenization
        self._multiple = pad_to_multiple_of
        self._longest = _CHARACTERS_PER_TOKEN * tokenization.max_tokens

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of what `__call__` gives."""
        return tuple(self._tokenization.inputs)

    def __call__(self, texts: Sequence[str]) -> dict[str, IntArray]:
        """`{input: int64 [batch, tokens]}`, padded to the longest of `texts`."""
        return self.pad(self.tokenize(texts))

    def tokenize(self, texts: Sequence[str]) -> list[Any]:
        """`tokenizers.Encoding` of each text, not padded."""
        encodings: list[Any] = self._tokenizer.encode_batch([self._beginning(text) for text in texts])
        return encodings

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

    def _beginning(self, text: str) -> str:
        """The part of a huge text that decides its first tokens; the others are cut off anyway.

        Tokenizing a megabyte takes a second, during which a server's instance answers nobody. A tokenizer splits into
        words first, so a cut changes no token but those of the word it is in; the beginning is taken only if it has at
        least as many tokens after the last that is kept as are kept.
        """
        if len(text) <= self._longest:
            return text
        beginning = text[: self._longest]
        word_end = beginning.rfind(" ")
        beginning = beginning[:word_end] if word_end > self._longest // 2 else beginning
        return beginning if len(self._tokenizer.encode(beginning).overflowing) >= 2 else text


class Predictor:
    """A model of a bundle, ready to answer. `threads` overrides the bundle's choice."""

    def __init__(self, directory: Path, spec: BundleSpec, target: Target, *, threads: int | None = None) -> None:
        self._spec = spec
        self._target = target
        self._task = get_task(spec.task)
        self._encoder = Encoder(directory / TOKENIZER, spec.tokenization, pad_to_multiple_of=target.pad_to_multiple_of)
        self._session = open_session(directory / target.model, target, threads=threads)

    def predict(self, texts: Sequence[str]) -> Prediction:
        """Answer `texts` in order."""
        logits = self.logits(texts)
        labels, scores = self._task.decode(logits, self._spec.labels, self._spec.temperature)
        return Prediction(labels, scores, logits)

    def logits(self, texts: Sequence[str]) -> FloatArray:
        """Raw logits `[texts, labels]`."""
        if not texts:
            return np.zeros((0, len(self._spec.labels)), dtype=np.float32)
        encodings = self._encoder.tokenize(texts)
        result = np.empty((len(texts), len(self._spec.labels)), dtype=np.float32)
        for rows in self._batches([len(encoding) for encoding in encodings]):
            result[rows] = self._session.run(self._encoder.pad([encodings[row] for row in rows]))
        return result

    def _batches(self, lengths: Sequence[int]) -> Iterator[list[int]]:
        """Rows that run together: of similar length, so that little is padding and a long list takes bounded memory."""
        if not self._target.batch_invariant:
            yield from ([row] for row in range(len(lengths)))
            return
        padded = [self._encoder.padded_length(tokens) for tokens in lengths]
        rows: list[int] = []
        for row in sorted(range(len(lengths)), key=lambda row: -padded[row]):
            if rows and (
                len(rows) == _MAX_BATCH
                or (len(rows) + 1) * padded[rows[0]] > _MAX_BATCH_TOKENS
                or padded[row] < _LEAST_FILLED * padded[rows[0]]
            ):
                yield rows
                rows = []
            rows.append(row)
        yield rows


__all__ = ["Encoder", "Prediction", "Predictor", "open_session"]
