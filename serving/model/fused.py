"""The `fused` layout: one Python-backend model that tokenizes, runs and decodes; text goes in and labels out.

Alternative: an ensemble of three models (tokenize → encoder → decode), which lets a GPU batch the encoder's calls over
requests. On a CPU each hop costs about 0.3 ms and a copy through shared memory, so fused is the faster one there.

Triton imports this class inside its stub process through the `model.py` of the repository; all the arithmetic is
`slipway.predictor.Predictor`, the class that computed the bundle's expected answers.
"""

import time
from collections.abc import Sequence
from typing import Any

from serving.model.answering import Answering
from serving.model.incoming import read
from serving.model.observation import Refusal, Request
from serving.model.outputs import Decoder
from serving.model.refusals import RefusedError, refusal_response
from serving.model.reporting import Reporter
from serving.model.settings import Loaded, load
from slipway.bundle import BundleSpec
from slipway.errors import ServingError
from slipway.predictor import Predictor


class TritonPythonModel:
    """Triton's Python backend makes one of these for each instance."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the bundle's files beside `model.py`; raising keeps the model from being served."""
        import triton_python_backend_utils

        self._triton = triton_python_backend_utils
        loaded = load(args)
        self._predictor = _predictor(loaded)
        check_answers(self._predictor, loaded.spec)
        self._decoder = Decoder(loaded.spec)
        self._answering = Answering(self._predictor, self._decoder, loaded.settings.long_text)
        self._reporter = Reporter(self._triton, loaded)

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """One response for each request, an error where the request is at fault."""
        started = time.time()
        triton, decoder = self._triton, self._decoder
        incoming = [read(triton, request, len(decoder.labels)) for request in requests]
        pool = self._answering.answer([one for one in incoming if one.refusal is None])
        results = iter(pool.results)
        responses: list[Any] = []
        refused: list[tuple[Request, Refusal]] = []
        for request, one in zip(requests, incoming, strict=True):
            result = one.refusal or next(results)
            if isinstance(result, RefusedError):
                refused.append((one.about, result.kind))
                responses.append(refusal_response(triton, result))
            else:
                tensors = decoder.tensors(triton, result, request.requested_output_names())
                responses.append(triton.InferenceResponse(output_tensors=tensors))
        self._reporter.executed(started, pool.tokenized_s, pool.computed_s, pool.work, pool.answered, refused)
        return responses

    def finalize(self) -> None:
        """Triton unloads the model."""
        self._reporter.close()


def check_answers(predictor: Predictor, spec: BundleSpec) -> None:
    """Ask the model the bundle's checks, which warms it up, too; one that answers differently must not go up."""
    if not spec.checks:
        return
    labels = predictor.predict([check.text for check in spec.checks]).labels
    for check, label in zip(spec.checks, labels, strict=True):
        if label != check.label:
            raise ServingError(f"the model answers {label!r} to {check.text!r}; the bundle says {check.label!r}")


def _predictor(loaded: Loaded) -> Predictor:
    settings = loaded.settings
    return Predictor(
        loaded.directory,
        loaded.spec,
        loaded.target,
        threads=settings.threads,
        budget=settings.budget,
        windows=settings.windows,
        providers=settings.execution_providers(loaded.device),
    )
