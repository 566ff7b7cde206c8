"""A request of Triton's, read and checked: texts, `top_k`, and what the front door told in its headers.

What is wrong with a request is the request's own failure, with the row that is at fault; its neighbours in the same
call are answered. Who has stopped waiting costs no inference. Triton hands over no call that was cancelled before its
batcher took it; whether it was since is asked (44 µs, a message to Triton and back) unless it is known that it came
just now. Of an HTTP caller that has gone Triton does not know.
"""

import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from serving.model.observation import Request
from serving.model.refusals import RefusedError
from serving.protocol import ARRIVED, DEADLINE, INPUT, REQUEST_ID, TOP_K, TRACEPARENT

_NO_PARAMETERS = ("", "{}")
_JUST_NOW_S = 0.1
"""Nobody who calls a model gives up sooner, or so few that asking all the others would cost more."""


@dataclass(frozen=True, slots=True)
class Incoming:
    """A request that can be answered, or why it can't."""

    about: Request
    texts: Sequence[str] = ()
    top_k: int = 1
    refusal: RefusedError | None = None


def read(triton: Any, request: Any, labels: int) -> Incoming:
    """What a Triton request asks of a model with so many labels; never raises."""
    about = Request()
    try:
        parameters, about = about_request(request)
        now = time.time()
        refusal = too_late(about, now) or _gone(request, about, now)
        if refusal is not None:
            return Incoming(about, refusal=refusal)
        tensor = triton.get_input_tensor_by_name(request, INPUT)
        return Incoming(about, read_texts(tensor.as_numpy()), read_top_k(parameters, labels))
    except RefusedError as error:
        return Incoming(about, refusal=error)
    # One request's failure must not become its neighbours'.
    except Exception as error:
        return Incoming(about, refusal=RefusedError("internal", f"the request can't be read: {type(error).__name__}"))


def about_request(request: Any) -> tuple[dict[str, Any], Request]:
    """Parameters of a Triton request, their names in lower case, and what they say about it."""
    written = request.parameters()
    if written in _NO_PARAMETERS:
        return {}, Request(id=request.request_id())
    parameters = {name.lower(): value for name, value in json.loads(written).items()}
    arrived_s = _moment(parameters.get(ARRIVED))
    return parameters, Request(
        id=str(parameters.get(REQUEST_ID) or request.request_id()),
        arrived_s=arrived_s,
        deadline_s=_deadline(_moment(parameters.get(DEADLINE)), arrived_s, request.timeout()),
        traceparent=_traceparent(request, str(parameters.get(TRACEPARENT, ""))),
    )


def _deadline(deadline_s: float, arrived_s: float, timeout_us: int) -> float:
    """When nobody waits any more, by the front door or by the request's own `timeout`; 0 if neither says."""
    if timeout_us and arrived_s:
        asked_s = arrived_s + timeout_us / 1e6
        return min(deadline_s, asked_s) if deadline_s else asked_s
    return deadline_s


def _traceparent(request: Any, header: str) -> str:
    """The span that the model's are in: Triton's for this model, where it traces; otherwise the header's."""
    if not header:
        return ""
    context = request.trace().get_context()
    return str(json.loads(context).get(TRACEPARENT, header)) if context else header


def too_late(about: Request, now: float) -> RefusedError | None:
    """A refusal if the deadline has passed."""
    if 0 < about.deadline_s <= now:
        return RefusedError("deadline", "the deadline passed before the model could begin; allow more time")
    return None


def _gone(request: Any, about: Request, now: float) -> RefusedError | None:
    """A refusal, which nobody reads, if the call was cancelled while it waited."""
    if not 0 <= now - about.arrived_s < _JUST_NOW_S and request.is_cancelled():
        return RefusedError("cancelled", "the call was cancelled")
    return None


def read_texts(tensor: npt.NDArray[Any]) -> list[str]:
    """The texts of a BYTES tensor `[rows, 1]`.

    Raises `RefusedError` for a row that is not UTF-8 or has nothing in it to classify.
    """
    if tensor.ndim != 2 or tensor.shape[1] != 1:
        raise _bad_text(f"input '{INPUT}' has shape {list(tensor.shape)}; it must be [rows, 1], one text a row")
    texts = []
    for row, value in enumerate(tensor[:, 0]):
        if not isinstance(value, bytes):
            raise _bad_text(f"row {row}: input '{INPUT}' must be of type BYTES")
        try:
            text = value.decode("utf-8")
        except UnicodeDecodeError as error:
            raise _bad_text(
                f"row {row}: the text is not valid UTF-8 (byte {error.start} is 0x{value[error.start]:02x}); "
                "encode it as UTF-8"
            ) from None
        if not text or text.isspace():
            raise _bad_text(f"row {row}: the text is {'blank' if text else 'empty'}; send at least one word")
        texts.append(text)
    return texts


def read_top_k(parameters: dict[str, Any], labels: int) -> int:
    """How many labels are wanted; raises `RefusedError` if that is not a number from 1 to `labels`."""
    wanted = parameters.get(TOP_K, 1)
    if isinstance(wanted, bool) or not isinstance(wanted, int) or not 1 <= wanted <= labels:
        raise RefusedError(
            "bad_parameter",
            f"parameter '{TOP_K}' is {_shown(wanted)}; it must be a whole number from 1 to {labels}, "
            "the number of labels",
        )
    return wanted


def _bad_text(message: str) -> RefusedError:
    return RefusedError("bad_text", message)


def _moment(value: Any) -> float:
    """Seconds that a header tells; 0, which is "unknown", for anything that is no moment."""
    if value is None:
        return 0.0
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        return 0.0
    return seconds if 0 < seconds < math.inf else 0.0


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:40]}…"
