"""A caller's side of an endpoint: texts in, labels and scores out, errors with names.

Requests are made by NVIDIA's tritonclient; this adds the names of the tensors, the splitting of long lists, and one
exception for each thing that a caller can do about a failure.
"""

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np

from serving.protocol import INPUT, LABEL, MAX_ROWS, SCORE, inference_body
from slipway.errors import ServingError

Protocol = Literal["grpc", "http"]

_REFUSED = {
    "StatusCode.INVALID_ARGUMENT", "StatusCode.NOT_FOUND", "StatusCode.UNIMPLEMENTED", "StatusCode.RESOURCE_EXHAUSTED",
}  # fmt: skip


class RequestRefusedError(ServingError):
    """The request is at fault (4xx); sending it again will not help. The message says which row and why."""


class EndpointUnavailableError(ServingError):
    """The endpoint can't answer now: not reached, not ready, too busy or too slow. Trying again later may help."""


@dataclass(frozen=True)
class Answer:
    """The label of a text and its probability."""

    label: str
    score: float


class Client:
    """Classifies texts through the endpoint at `address` (`host:port`); both protocols share the port.

    `timeout_s` is for one request of at most 64 texts.
    """

    def __init__(self, address: str, model: str, protocol: Protocol = "grpc", *, timeout_s: float = 30.0) -> None:
        self._address = address
        self._model = model
        self._timeout_s = timeout_s
        self._triton: Any
        self._arguments: dict[str, Any] = {}
        if protocol == "grpc":
            import tritonclient.grpc as triton

            self._client = triton.InferenceServerClient(address)
            self._arguments["client_timeout"] = timeout_s
        else:
            import tritonclient.http as triton

            self._client = triton.InferenceServerClient(
                address, connection_timeout=timeout_s, network_timeout=timeout_s
            )
        self._triton = triton

    def classify(self, texts: Sequence[str]) -> list[Answer]:
        """An answer for each text, in order.

        Raises `RequestRefusedError` or `EndpointUnavailableError`.
        """
        answers: list[Answer] = []
        for start in range(0, len(texts), MAX_ROWS):
            answers += self._classify(texts[start : start + MAX_ROWS])
        return answers

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _classify(self, texts: Sequence[str]) -> list[Answer]:
        column = np.array([[text.encode("utf-8")] for text in texts], dtype=np.object_)
        tensor = self._triton.InferInput(INPUT, list(column.shape), "BYTES")
        tensor.set_data_from_numpy(column)
        outputs = [self._triton.InferRequestedOutput(name) for name in (LABEL, SCORE)]
        try:
            result = self._client.infer(self._model, [tensor], outputs=outputs, **self._arguments)
        except Exception as error:
            raise self._translated(error) from error
        labels, scores = result.as_numpy(LABEL), result.as_numpy(SCORE)
        return [
            Answer(label.decode("utf-8"), float(score)) for label, score in zip(labels[:, 0], scores[:, 0], strict=True)
        ]

    def _translated(self, error: Exception) -> Exception:
        from tritonclient.utils import InferenceServerException

        if isinstance(error, InferenceServerException):
            status, message = str(error.status()), error.message()
            if status in _REFUSED or status.startswith("4"):
                return RequestRefusedError(message)
            return EndpointUnavailableError(f"{self._address}: {message}")
        if isinstance(error, OSError):
            return EndpointUnavailableError(f"{self._address} can't be reached: {error}")
        return error


def curl_line(url: str, model: str, text: str) -> str:
    """A shell line that asks the endpoint at `url` (`http://host:port`) for the label and score of `text`."""
    body = json.dumps(inference_body(text), ensure_ascii=False)
    return f"curl -s {shlex.quote(f'{url}/v2/models/{model}/infer')} -d {shlex.quote(body)}"
