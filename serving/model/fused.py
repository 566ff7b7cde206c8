"""The `fused` layout: one Python-backend model that tokenizes, runs and decodes; text goes in and labels out.

Alternative: an ensemble of three models (tokenize → encoder → decode), which lets a GPU batch the encoder's
calls over requests. On a CPU each hop costs about 0.3 ms and a copy through shared memory, and batching gains
nothing (see `slipway.predictor`), so fused is the faster one there.

Triton imports this class inside its stub process through the `model.py` of the repository; all the arithmetic
is `slipway.predictor.Predictor`, the class that computed the bundle's expected answers.

What is wrong with a request is the request's own failure: `execute` answers each request for itself, with
INVALID_ARG (400 over HTTP, INVALID_ARGUMENT over gRPC) and the row that is at fault. A message never repeats
the text: it would end up in logs.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from serving.protocol import INPUT, LABEL, LOGITS, SCORE
from slipway.bundle import SPEC, BundleSpec
from slipway.errors import ServingError
from slipway.predictor import Predictor


class BadTextError(ValueError):
    """A row of a request can't be classified; the message says which row and why."""


def decode_texts(column: npt.NDArray[Any]) -> list[str]:
    """The texts of a BYTES tensor `[rows, 1]`.

    Raises `BadTextError` for a row that is not UTF-8 or has nothing in it to classify.
    """
    if column.ndim != 2 or column.shape[1] != 1:
        raise BadTextError(f"input '{INPUT}' has shape {list(column.shape)}; it must be [rows, 1], one text a row")
    texts = []
    for row, value in enumerate(column[:, 0]):
        if not isinstance(value, bytes):
            raise BadTextError(f"row {row}: input '{INPUT}' must be of type BYTES")
        try:
            text = value.decode("utf-8")
        except UnicodeDecodeError as error:
            raise BadTextError(
                f"row {row}: the text is not valid UTF-8 (byte {error.start} is 0x{value[error.start]:02x}); "
                "encode it as UTF-8"
            ) from None
        if not text.strip():
            raise BadTextError(f"row {row}: the text is {'blank' if text else 'empty'}; send at least one word")
        texts.append(text)
    return texts


def check_answers(predictor: Predictor, spec: BundleSpec) -> None:
    """Ask the model the bundle's checks, which warms it up, too; one that answers differently must not go up."""
    if not spec.checks:
        return
    labels = predictor.predict([check.text for check in spec.checks]).labels
    for check, label in zip(spec.checks, labels, strict=True):
        if label != check.label:
            raise ServingError(f"the model answers {label!r} to {check.text!r}; the bundle says {check.label!r}")


class TritonPythonModel:
    """Triton's Python backend makes one of these for each instance."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the bundle's files beside `model.py`; raising keeps the model from being served."""
        import triton_python_backend_utils

        self._triton = triton_python_backend_utils
        directory = Path(args["model_repository"]) / args["model_version"]
        parameters = json.loads(args["model_config"])["parameters"]
        spec = BundleSpec.model_validate_json((directory / SPEC).read_text(encoding="utf-8"))
        target = spec.targets[parameters["target"]["string_value"]]
        threads = int(parameters["threads"]["string_value"])
        self._predictor = Predictor(directory, spec, target, threads=threads)
        check_answers(self._predictor, spec)

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """One response for each request, an error where the request is at fault."""
        return [self._respond(request) for request in requests]

    def _respond(self, request: Any) -> Any:
        triton = self._triton
        try:
            tensor = triton.get_input_tensor_by_name(request, INPUT)
            answer = self._predictor.predict(decode_texts(tensor.as_numpy()))
        except BadTextError as error:
            return _failure(triton, str(error), triton.TritonError.INVALID_ARG)
        except Exception as error:  # one request's failure must not become its neighbours'
            return _failure(triton, f"the model failed: {type(error).__name__}", triton.TritonError.INTERNAL)
        columns = {
            LABEL: np.array([[label.encode()] for label in answer.labels], dtype=np.object_),
            SCORE: answer.scores.astype(np.float32).reshape(-1, 1),
            LOGITS: answer.logits,
        }
        wanted = set(request.requested_output_names()) or set(columns)
        return triton.InferenceResponse(
            output_tensors=[triton.Tensor(name, value) for name, value in columns.items() if name in wanted]
        )


def _failure(triton: Any, message: str, code: Any) -> Any:
    return triton.InferenceResponse(output_tensors=[], error=triton.TritonError(message, code))
