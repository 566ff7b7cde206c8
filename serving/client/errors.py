"""One exception for each thing that a caller can do about a failure.

    CallError
      RequestRefusedError        mend the request; sending it again will not help
        UnauthenticatedError     give credentials, or others
        ForbiddenError           ask for access to this model
      EndpointUnavailableError   send it again later; the client has tried already
        RateLimitedError         send fewer; `retry_after_s` says when the next is welcome
        DeadlineExceededError    allow more time, or send less at once
        EndpointFailedError      tell whoever runs the endpoint, with `request_id`

No message holds a text: messages end up in logs.
"""

from slipway.errors import ServingError


class CallError(ServingError):
    """A call that got no answer; `str()` of it says which texts, why, and the request id where one is known."""

    worth_repeating = False
    """Whether the same request may be answered a moment later. Inference changes nothing, so it is safe."""

    def __init__(self, reason: str, *, request_id: str = "", retry_after_s: float | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.request_id = request_id
        """By which the endpoint's logs and traces know the request; "" if it got none."""
        self.retry_after_s = retry_after_s
        """How long the endpoint asked to be left alone; None if it didn't."""
        self.offset: int | None = None
        """Number of the first text of the request that failed, where one call makes several."""
        self._rows = 0

    def locate(self, offset: int, rows: int) -> None:
        """Say that the request held `rows` texts of the call, the first of them number `offset`."""
        self.offset, self._rows = offset, rows

    def __str__(self) -> str:
        where = "" if self.offset is None else f"texts {self.offset} to {self.offset + self._rows - 1}: "
        return f"{where}{self.reason}" + (f" (request {self.request_id})" if self.request_id else "")


class RequestRefusedError(CallError):
    """The request is at fault (4xx); sending it again will not help. The message says which row and why."""


class UnauthenticatedError(RequestRefusedError):
    """No credentials, or ones that the endpoint doesn't accept (401)."""


class ForbiddenError(RequestRefusedError):
    """The credentials are good, but not for this (403)."""


class EndpointUnavailableError(CallError):
    """The endpoint can't answer now: not reached, not ready, too busy or too slow. Trying again later may help."""

    worth_repeating = True


class RateLimitedError(EndpointUnavailableError):
    """More requests than this caller may send (429)."""


class DeadlineExceededError(EndpointUnavailableError):
    """No answer in time (504, or the caller's own deadline)."""


class EndpointFailedError(EndpointUnavailableError):
    """The endpoint broke on the request (500), or its answer can't be read."""


_HTTP: dict[int, type[CallError]] = {
    401: UnauthenticatedError,
    403: ForbiddenError,
    408: DeadlineExceededError,
    429: RateLimitedError,
    502: EndpointUnavailableError,
    503: EndpointUnavailableError,
    504: DeadlineExceededError,
}
_GRPC: dict[str, type[CallError]] = {
    "UNAUTHENTICATED": UnauthenticatedError,
    "PERMISSION_DENIED": ForbiddenError,
    "INVALID_ARGUMENT": RequestRefusedError,
    "NOT_FOUND": RequestRefusedError,
    "OUT_OF_RANGE": RequestRefusedError,
    "FAILED_PRECONDITION": RequestRefusedError,
    "UNIMPLEMENTED": RequestRefusedError,
    "DEADLINE_EXCEEDED": DeadlineExceededError,
    "UNAVAILABLE": EndpointUnavailableError,
    # The client cancels by leaving, and then nobody looks; so this is a server on its way down.
    "CANCELLED": EndpointUnavailableError,
}


def error_of_http(status: int) -> type[CallError]:
    """What an HTTP status other than 200 means."""
    other = RequestRefusedError if 400 <= status < 500 else EndpointFailedError
    return _HTTP.get(status, other)


def error_of_grpc(status: str, *, asks_to_wait: bool) -> type[CallError]:
    """What a gRPC status (its name) means.

    RESOURCE_EXHAUSTED is both "too many" and "too large"; only the former `asks_to_wait` (has a Retry-After).
    """
    if status == "RESOURCE_EXHAUSTED":
        return RateLimitedError if asks_to_wait else RequestRefusedError
    return _GRPC.get(status, EndpointFailedError)
