"""Text to label with nothing but a bundle's files: tokenizer, engine, decoding.

Export computes the bundle's expected answers with this class and the server answers with it, so the two can't drift.

Dynamic int8 quantization takes the range of the activations over the whole batch, so a row's logits would depend on its
neighbours and its padding, and a request's answer on what it was batched with. Two ways out: static ranges (calibrated;
costs accuracy on transformers unless outliers are handled) or one row at a time. One row at a time is what a target
marked `batch_invariant: false` gets; on a CPU a batch of short texts is compute-bound anyway, and no padding is run.

Other models get batches of texts of similar length (`slipway.batching`). Long texts are truncated unless windows are
asked for (`slipway.encoder`); what a text's windows say is made one answer by the task.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from slipway.batching import FEW_SHAPES, TokenBudget, token_batches
from slipway.bundle import TOKENIZER, BundleSpec, Target
from slipway.encoder import BEGINNING, Encoder, TokenRow, Windows
from slipway.engines import Provider, open_session
from slipway.errors import ServingError
from slipway.tasks import get_task

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Prediction:
    """Answers for a list of texts, row by row."""

    labels: list[str]
    scores: FloatArray
    """`[texts]`, probability of the label."""
    logits: FloatArray
    """`[texts, labels]`, before the temperature."""
    truncated: list[bool]
    """Whether the end of a text was left out."""


@dataclass(frozen=True)
class Work:
    """What it took to answer."""

    tokens: int = 0
    """Of the texts, special ones included."""
    padded_tokens: int = 0
    """That were run only to fill up rows."""
    runs: int = 0
    """Calls of the engine."""


class Predictor:
    """A model of a bundle, ready to answer.

    Args:
        directory: where the bundle's files are.
        spec: of the bundle.
        target: one of its targets.
        threads: overrides the target's.
        budget: of one call of the engine.
        windows: of a text that is longer than the model takes.
        providers: ONNX Runtime's ways to a GPU; none is the CPU.
    """

    def __init__(
        self,
        directory: Path,
        spec: BundleSpec,
        target: Target,
        *,
        threads: int | None = None,
        budget: TokenBudget | None = None,
        windows: Windows = BEGINNING,
        providers: Sequence[Provider] = (),
    ) -> None:
        self._spec = spec
        self._task = get_task(spec.task)
        self._invariant = target.batch_invariant
        self._budget = budget or TokenBudget()
        if self._budget.row_counts is None and target.pad_to_multiple_of > 1:
            self._budget = replace(self._budget, row_counts=FEW_SHAPES)
        self.encoder = Encoder(
            directory / TOKENIZER,
            spec.tokenization,
            pad_to_multiple_of=target.pad_to_multiple_of,
            windows=windows,
        )
        self._session = open_session(directory / target.model, target, threads=threads, providers=providers)

    def predict(self, texts: Sequence[str]) -> Prediction:
        """Answer `texts` in order; raises `ServingError` for one without tokens."""
        rows = self.encoder.rows(texts)
        for place, row in enumerate(rows):
            if row.tokens == 0:  # a tokenizer without special tokens makes nothing of an empty text
                raise ServingError(f"text {place} has nothing that the model reads.")
        logits, _ = self.run(rows)
        labels, scores = self._task.decode(logits, self._spec.labels, self._spec.temperature)
        return Prediction(labels, scores, logits, [row.truncated for row in rows])

    def logits(self, texts: Sequence[str]) -> FloatArray:
        """Raw logits `[texts, labels]`."""
        return self.run(self.encoder.rows(texts))[0]

    def run(self, rows: Sequence[TokenRow]) -> tuple[FloatArray, Work]:
        """Logits `[rows, labels]` of what the encoder gave, and what they took."""
        pieces = [window for row in rows for window in row.windows]
        lengths = [len(piece) for piece in pieces]
        logits = np.empty((len(pieces), len(self._spec.labels)), dtype=np.float32)
        places = runs = 0
        for group in self._batches([self.encoder.padded_length(tokens) for tokens in lengths]):
            batch = self.encoder.pad([pieces[piece] for piece in group])
            logits[group] = self._session.run(batch)
            places += next(iter(batch.values())).size
            runs += 1
        tokens = sum(lengths)
        work = Work(tokens, places - tokens, runs)
        return merged(logits, [row.new_tokens for row in rows], self._spec), work

    def _batches(self, lengths: Sequence[int]) -> Iterable[list[int]]:
        """Rows that run together, by their padded lengths."""
        if not self._invariant:
            return ([row] for row in range(len(lengths)))
        return token_batches(lengths, self._budget)


def merged(logits: FloatArray, new_tokens: Sequence[Sequence[int]], spec: BundleSpec) -> FloatArray:
    """Logits `[texts, labels]` from those of all windows of all texts in order, `[windows, labels]`.

    `new_tokens` has a list for each text: what each of its windows adds (`slipway.encoder.TokenRow`).
    """
    if len(logits) == len(new_tokens):
        return logits
    task = get_task(spec.task)
    result = np.empty((len(new_tokens), logits.shape[1]), dtype=np.float32)
    start = 0
    for text, new in enumerate(new_tokens):
        end = start + len(new)
        result[text] = task.merge(logits[start:end], new, spec.temperature)
        start = end
    return result


__all__ = ["Encoder", "FloatArray", "Prediction", "Predictor", "Work", "merged"]
