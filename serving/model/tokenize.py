"""The first step of the `ensemble` layout: texts to padded tokens, a row for each window of each text.

A request becomes one call of the encoder, padded to its longest text and from there to a multiple of the bucket: Triton
batches only requests of the same shape, and with every length its own shape none would meet another. Requests are kept
apart here; pooling them is Triton's work, between this step and the next.

What `decode` must know of the texts goes with the tokens, row by row, because the rows of all inputs of a step must be
as many: which row is a text's first, how many tokens it adds, whether the text was truncated, and the text itself (for
observers; empty where a row goes on with the text of the one before).
"""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from serving.model.incoming import Incoming, read
from serving.model.observation import Refusal, Request
from serving.model.refusals import RefusedError, refusal_response
from serving.model.reporting import Reporter
from serving.model.settings import load
from serving.model.tokens import token_rows
from serving.protocol import MAX_ROWS, TRUNCATED
from slipway.bundle import TOKENIZER
from slipway.encoder import Encoder, TokenRow
from slipway.predictor import Work

FIRST = "first"
"""BOOL `[windows, 1]`: whether the row begins a text."""
NEW_TOKENS = "new_tokens"
"""INT32 `[windows, 1]`: tokens that the row adds to what the one before it had."""
SOURCE = "source"
"""BYTES `[windows, 1]`: the text, in its first row."""


class TritonPythonModel:
    """Triton's Python backend makes one of these for each instance."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the tokenizer."""
        import triton_python_backend_utils

        self._triton = triton_python_backend_utils
        loaded = load(args)
        self._settings = loaded.settings
        self._labels = len(loaded.spec.labels)
        self._encoder = Encoder(
            loaded.directory / TOKENIZER,
            loaded.spec.tokenization,
            pad_to_multiple_of=self._settings.bucket,
            windows=self._settings.windows,
        )
        self._reporter = Reporter(self._triton, loaded)

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """One response for each request, an error where the request is at fault."""
        started = time.time()
        triton = self._triton
        incoming = [read(triton, request, self._labels) for request in requests]
        results = iter(self._tokenized([one for one in incoming if one.refusal is None]))
        responses: list[Any] = []
        refused: list[tuple[Request, Refusal]] = []
        tokens = places = runs = 0
        for one in incoming:
            result = one.refusal or next(results)
            if isinstance(result, list):
                result = _too_many(result) or result
            if isinstance(result, RefusedError):
                refused.append((one.about, result.kind))
                responses.append(refusal_response(triton, result))
                continue
            columns = self._columns(one, result)
            responses.append(
                triton.InferenceResponse(
                    output_tensors=[triton.Tensor(name, column) for name, column in columns.items()]
                )
            )
            tokens += sum(len(window) for row in result for window in row.windows)
            places += next(iter(columns.values())).size
            runs += 1
        tokenized = time.time()
        self._reporter.executed(started, tokenized, tokenized, Work(tokens, places - tokens, runs), (), refused)
        return responses

    def finalize(self) -> None:
        """Triton unloads the model."""
        self._reporter.close()

    def _tokenized(self, requests: Sequence[Incoming]) -> list[list[TokenRow] | RefusedError]:
        try:
            return token_rows(self._encoder, requests, self._settings.long_text)
        # As in `serving.model.answering`: which request it was is found out by asking one at a time.
        except Exception as error:
            if len(requests) > 1:
                return [result for request in requests for result in self._tokenized([request])]
            return [RefusedError("internal", f"the tokenizer failed: {type(error).__name__}")]

    def _columns(self, incoming: Incoming, rows: Sequence[TokenRow]) -> dict[str, Any]:
        columns: dict[str, Any] = dict(self._encoder.pad([window for row in rows for window in row.windows]))
        first, new, truncated, source = [], [], [], []
        for text, row in zip(incoming.texts, rows, strict=True):
            for number, tokens in enumerate(row.new_tokens):
                first.append(number == 0)
                new.append(tokens)
                truncated.append(row.truncated)
                source.append(text.encode() if number == 0 else b"")
        columns[FIRST] = _column(first, np.bool_)
        columns[NEW_TOKENS] = _column(new, np.int32)
        columns[TRUNCATED] = _column(truncated, np.bool_)
        columns[SOURCE] = _column(source, np.object_)
        return columns


def _too_many(rows: Sequence[TokenRow]) -> RefusedError | None:
    windows = sum(len(row.windows) for row in rows)
    if windows <= MAX_ROWS:
        return None
    return RefusedError(
        "too_long",
        f"the texts of the request make {windows} windows of tokens; at most {MAX_ROWS} are run. Send fewer texts.",
    )


def _column(values: Sequence[Any], kind: Any) -> Any:
    return np.array(values, dtype=kind).reshape(-1, 1)
