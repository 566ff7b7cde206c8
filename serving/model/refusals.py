"""Why a request gets no answer: a kind for whoever counts, a sentence for its caller, a status for the protocol."""

from typing import Any

from serving.model.observation import Refusal

_CODES: dict[Refusal, str] = {
    "bad_text": "INVALID_ARG",
    "too_long": "INVALID_ARG",
    "bad_parameter": "INVALID_ARG",
    # Triton has no status of its own for a deadline; whoever set it has stopped waiting.
    "deadline": "UNAVAILABLE",
    "cancelled": "CANCELLED",
    "internal": "INTERNAL",
}


class RefusedError(Exception):
    """The request is refused. The message names the row and never repeats the text: it would end up in logs."""

    def __init__(self, kind: Refusal, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def refusal_response(triton: Any, error: RefusedError) -> Any:
    """What Triton sends: INVALID_ARG is 400 over HTTP and INVALID_ARGUMENT over gRPC, UNAVAILABLE 503, and so on."""
    code = getattr(triton.TritonError, _CODES[error.kind])
    return triton.InferenceResponse(output_tensors=[], error=triton.TritonError(str(error), code))
