"""Questions and answers as both protocols write them (Open Inference Protocol), through tritonclient's encoders."""

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import numpy as np

from serving.client.answers import Answer
from serving.client.errors import EndpointFailedError, RequestRefusedError
from serving.protocol import INPUT, LABEL, SCORE, SCORES, TOP_K, TRUNCATED

TIMEOUT_MS = "x-slipway-timeout-ms"
LONGEST_TIMEOUT_MS = 99_999_999
"""Eight digits are what the front door reads, more than a day."""
RETRY_AFTER = "retry-after"
RETRY_PUSHBACK_MS = "grpc-retry-pushback-ms"
"""What gRPC calls a Retry-After (proposal A6)."""

Outputs = Mapping[str, Sequence[int]]
"""Shapes of a model's outputs by name; -1 is any size."""

_MOST_LABELS = 2**31 - 1
_LONGEST_SHOWN = 30
_SECONDS = re.compile(r"\d+(\.\d+)?")


@dataclass(frozen=True)
class Question:
    """At most `MAX_ROWS` texts, and what is to be known of them."""

    model: str
    texts: Sequence[str]
    outputs: Sequence[str]
    top_k: int | None
    request_id: str


@dataclass(frozen=True)
class Reply:
    """What came back: tensors by name (`as_numpy`), and who answered."""

    result: Any
    version: str
    request_id: str


def encoded(texts: Sequence[str]) -> "np.ndarray[Any, Any]":
    """`texts` as the input's column, BYTES `[rows, 1]`; raises `RequestRefusedError` for what is no text."""
    column = np.empty((len(texts), 1), dtype=np.object_)
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            raise RequestRefusedError(f"row {row}: {type(text).__name__} is not text")
        try:
            column[row, 0] = text.encode("utf-8")
        except UnicodeEncodeError as error:
            # Not the error itself as a cause: it holds the text.
            reason = f"row {row}: half of a character (a lone surrogate) at place {error.start}, which can't be sent"
        else:
            continue
        raise RequestRefusedError(reason)
    return column


def grpc_question(question: Question) -> Any:
    """`ModelInferRequest`."""
    from tritonclient.grpc import service_pb2
    from tritonclient.utils import serialize_byte_tensor

    column = encoded(question.texts)
    request = service_pb2.ModelInferRequest(model_name=question.model, id=question.request_id)
    request.inputs.add(name=INPUT, datatype="BYTES", shape=list(column.shape))
    request.raw_input_contents.append(serialize_byte_tensor(column).item())
    for name in question.outputs:
        request.outputs.add(name=name)
    if question.top_k is not None:
        request.parameters[TOP_K].int64_param = question.top_k
    return request


def http_question(question: Question) -> tuple[bytes, dict[str, str]]:
    """Body and headers of the POST to `http_path`."""
    import tritonclient.http as triton

    column = encoded(question.texts)
    tensor = triton.InferInput(INPUT, list(column.shape), "BYTES")
    tensor.set_data_from_numpy(column)
    body, json_size = triton.InferenceServerClient.generate_request_body(
        [tensor],
        outputs=[triton.InferRequestedOutput(name) for name in question.outputs],
        request_id=question.request_id,
        parameters=None if question.top_k is None else {TOP_K: question.top_k},
    )
    return body, {
        "content-type": "application/octet-stream",
        "inference-header-content-length": str(json_size),
    }


def http_path(model: str) -> str:
    """Of a model; `/infer` comes after it."""
    return f"/v2/models/{quote(model, safe='')}"


def question_of(
    model: str, texts: Sequence[str], known: Outputs, *, top_k: int | None, scores: bool, request_id: str
) -> Question:
    """Ask a model whose outputs are `known` (none: metadata isn't to be had); raises `RequestRefusedError`."""
    if top_k is not None:
        top_k = _whole(top_k)
    if scores and top_k is not None:
        raise RequestRefusedError("scores gives every label, top_k so many of them; ask for one of the two")
    if scores:
        if SCORES not in known:
            raise RequestRefusedError("this endpoint gives the best label only, not the scores of all")
        # Labels and scores of all, best first: a caller then needs no list of the labels in the model's order.
        top_k = known[SCORES][-1]
    outputs = (LABEL, SCORE, TRUNCATED) if TRUNCATED in known else (LABEL, SCORE)
    return Question(model, texts, outputs, top_k, request_id)


def _whole(top_k: object) -> int:
    """`top_k` as both protocols can write it; how many labels there are is the endpoint's to say."""
    number = top_k.__index__() if hasattr(top_k, "__index__") and not isinstance(top_k, bool) else 0
    if not 1 <= number <= _MOST_LABELS:
        shown = repr(top_k) if len(repr(top_k)) <= _LONGEST_SHOWN else type(top_k).__name__
        raise RequestRefusedError(f"{TOP_K} is {shown}; it must be a whole number from 1 to the number of labels")
    return number


@contextlib.contextmanager
def reading(request_id: str) -> Iterator[None]:
    """Raise `EndpointFailedError` for whatever the decoders raise at what is no answer; they check next to nothing."""
    from tritonclient.utils import InferenceServerException

    kinds = (ValueError, LookupError, TypeError, AttributeError, RecursionError, InferenceServerException)
    try:
        yield
    except kinds as error:
        reason = f"the answer to the request can't be read: {type(error).__name__}"
        raise EndpointFailedError(reason, request_id=request_id) from None


def read_answers(reply: Reply, question: Question) -> list[Answer]:
    """An answer for each text; raises `EndpointFailedError` if there isn't one."""
    with reading(reply.request_id):
        return _answers(reply, question)


def _answers(reply: Reply, question: Question) -> list[Answer]:
    rows = len(question.texts)
    labels, scores = _column(reply, LABEL, rows), _column(reply, SCORE, rows)
    if labels.shape != scores.shape or labels.shape[1] < 1:
        raise _unreadable(reply, f"{LABEL} and {SCORE} are of shape {labels.shape} and {scores.shape}")
    if question.top_k is not None and labels.shape[1] != question.top_k:
        raise RequestRefusedError(
            f"{TOP_K} asked for {question.top_k} labels and {labels.shape[1]} came; the endpoint doesn't know it",
            request_id=reply.request_id,
        )
    truncated = _column(reply, TRUNCATED, rows)[:, 0].tolist() if TRUNCATED in question.outputs else [None] * rows
    return [
        Answer(
            _text(names[0]),
            float(values[0]),
            None if cut is None else bool(cut),
            reply.version,
            {} if question.top_k is None else dict(zip(map(_text, names), map(float, values), strict=True)),
        )
        for names, values, cut in zip(labels, scores, truncated, strict=True)
    ]


def waiting_time_s(retry_after: str | None) -> float | None:
    """Seconds of a `Retry-After`; a date is not what a rate limit gives, and counts as none."""
    if retry_after is None or not _SECONDS.fullmatch(retry_after.strip()):
        return None
    return float(retry_after)


def _column(reply: Reply, name: str, rows: int) -> "np.ndarray[Any, Any]":
    values = reply.result.as_numpy(name)
    if values is None or values.ndim != 2 or len(values) != rows:
        raise _unreadable(reply, f"{name} is {'missing' if values is None else f'of shape {values.shape}'}")
    return values  # type: ignore[no-any-return]


def _unreadable(reply: Reply, why: str) -> EndpointFailedError:
    return EndpointFailedError(f"the answer to the request can't be read: {why}", request_id=reply.request_id)


def _text(value: Any) -> str:
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)
