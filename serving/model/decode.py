"""The last step of the `ensemble` layout: the encoder's logits to labels, scores and whatever else was asked for."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from serving.model.incoming import about_request, read_top_k
from serving.model.observation import Answered, Refusal, Request
from serving.model.outputs import Decoder
from serving.model.refusals import RefusedError, refusal_response
from serving.model.reporting import Reporter
from serving.model.settings import load
from serving.model.tokenize import FIRST, NEW_TOKENS, SOURCE
from serving.protocol import LOGITS, TRUNCATED
from slipway.predictor import Work, merged


class TritonPythonModel:
    """Triton's Python backend makes one of these for each instance."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load what the bundle says of its labels."""
        import triton_python_backend_utils

        self._triton = triton_python_backend_utils
        loaded = load(args)
        self._spec = loaded.spec
        self._decoder = Decoder(loaded.spec)
        self._reporter = Reporter(self._triton, loaded)

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """One response for each request."""
        started = time.time()
        answered: list[Answered] = []
        refused: list[tuple[Request, Refusal]] = []
        responses = [self._respond(request, answered, refused) for request in requests]
        self._reporter.executed(started, started, started, Work(), answered, refused)
        return responses

    def finalize(self) -> None:
        """Triton unloads the model."""
        self._reporter.close()

    def _respond(self, request: Any, answered: list[Answered], refused: list[tuple[Request, Refusal]]) -> Any:
        triton, about = self._triton, Request()
        try:
            parameters, about = about_request(request)
            top_k = read_top_k(parameters, len(self._decoder.labels))
            columns = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
            texts = _Texts.of(columns)
            logits = merged(columns[LOGITS], texts.new_tokens, self._spec)
            answer = self._decoder.answer(logits, self._decoder.scores(logits), texts.truncated, top_k)
            tensors = self._decoder.tensors(triton, answer, request.requested_output_names())
        except RefusedError as error:
            refused.append((about, error.kind))
            return refusal_response(triton, error)
        # One request's failure must not become its neighbours'.
        except Exception as error:
            refused.append((about, "internal"))
            return refusal_response(
                triton, RefusedError("internal", f"the answer can't be made: {type(error).__name__}")
            )
        windows = [len(new) for new in texts.new_tokens]
        answered.append(Answered(about, texts.sources, *self._decoder.told(answer), texts.truncated, windows))
        return triton.InferenceResponse(output_tensors=tensors)


@dataclass(frozen=True)
class _Texts:
    """A request's texts in the rows of the encoder, by what `tokenize` sent along."""

    sources: list[str]
    truncated: list[bool]
    new_tokens: list[list[int]]
    """That each window of a text adds."""

    @classmethod
    def of(cls, columns: dict[str, Any]) -> Self:
        """From the tensors of the request, `[windows, 1]` each."""
        starts = np.flatnonzero(columns[FIRST][:, 0])
        return cls(
            [text.decode() for text in columns[SOURCE][starts, 0]],
            columns[TRUNCATED][starts, 0].tolist(),
            [new.tolist() for new in np.split(columns[NEW_TOKENS][:, 0], starts[1:])],
        )
