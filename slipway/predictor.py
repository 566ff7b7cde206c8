"""Text to label with nothing but a bundle's files: tokenizer, ONNX Runtime, decoding.

Export computes the bundle's expected answers with this class and the server answers with it, so the two can't drift.

Dynamic int8 quantization takes the range of the activations over the whole batch, so a row's logits would depend on its
neighbours and its padding, and a request's answer on what it was batched with. Two ways out: static ranges (calibrated;
costs accuracy on transformers unless outliers are handled) or one row at a time. One row at a time is what a target
marked `batch_invariant: false` gets; on a CPU a batch of short texts is compute-bound anyway, and no padding is run.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from slipway.bundle import TOKENIZER, BundleSpec, Target, Tokenization
from slipway.tasks import get_task

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]

_MAX_BATCH = 32
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
    """Texts to padded token numbers, exactly as in training."""

    def __init__(self, tokenizer_file: Path, tokenization: Tokenization) -> None:
        from tokenizers import Tokenizer

        self._tokenizer = Tokenizer.from_file(str(tokenizer_file))
        # A tokenizer.json may carry a padding and a truncation of its own (all-MiniLM's pads to 128).
        self._tokenizer.enable_truncation(max_length=tokenization.max_tokens)
        self._tokenizer.enable_padding(
            pad_id=tokenization.pad_id, pad_token=tokenization.pad_token, pad_type_id=tokenization.pad_type_id
        )
        self._inputs = tokenization.inputs
        self._longest = _CHARACTERS_PER_TOKEN * tokenization.max_tokens

    def __call__(self, texts: Sequence[str]) -> dict[str, IntArray]:
        """`{input: int64 [batch, tokens]}`, padded to the longest of `texts`."""
        encodings = self._tokenizer.encode_batch([self._beginning(text) for text in texts])
        columns = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}
        return {
            name: np.array([getattr(encoding, columns[name]) for encoding in encodings], dtype=np.int64)
            for name in self._inputs
        }

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
        self._encode = Encoder(directory / TOKENIZER, spec.tokenization)
        self._session = open_session(directory / target.model, threads or target.threads)

    def predict(self, texts: Sequence[str]) -> Prediction:
        """Answer `texts` in order."""
        logits = self.logits(texts)
        labels, scores = self._task.decode(logits, self._spec.labels, self._spec.temperature)
        return Prediction(labels, scores, logits)

    def logits(self, texts: Sequence[str]) -> FloatArray:
        """Raw logits `[texts, labels]`."""
        if not texts:
            return np.zeros((0, len(self._spec.labels)), dtype=np.float32)
        if not self._target.batch_invariant:
            return np.concatenate([self._run([text]) for text in texts])
        # Neighbours of similar length: little padding, and a long list takes bounded memory.
        order = sorted(range(len(texts)), key=lambda row: len(texts[row]))
        result = np.empty((len(texts), len(self._spec.labels)), dtype=np.float32)
        for start in range(0, len(order), _MAX_BATCH):
            rows = order[start : start + _MAX_BATCH]
            result[rows] = self._run([texts[row] for row in rows])
        return result

    def _run(self, texts: Sequence[str]) -> FloatArray:
        logits: FloatArray = self._session.run(["logits"], self._encode(texts))[0]
        return logits.astype(np.float32, copy=False)


def open_session(model: Path, threads: int) -> Any:
    """An ONNX Runtime CPU session with `threads` threads that don't spin while idle."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Spinning threads win a few percent alone and starve the tokenizer and the other instances on a shared CPU.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
