"""What is sent again, when, and until when.

Inference changes nothing on the server, so whatever may be answered a moment later is sent again, even if the first one
might have been processed: an endpoint that can't be reached or is too busy (503), a rate limit (429), a model process
that died (500), a server's own time limit (504). What the caller has to mend first (4xx) is not.

Waits double from one attempt to the next and are drawn between half and all of that, so that callers who failed
together don't come back together; `Retry-After` is the least. Six attempts, the default, span 3 to 6 s: a killed model
process is back after one, a killed server after two or three.

The deadline is the caller's and covers attempts and waits. An attempt may use all that is left of it unless
`attempt_timeout_s` says less: a hung server then leaves time for another. A wait that would end beyond the deadline is
not begun; the caller gets the failure that there was, at once.
"""

import logging
import math
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

import tenacity

from serving.client.errors import CallError, DeadlineExceededError
from slipway.errors import ServingError

T = TypeVar("T")
Policy = TypeVar("Policy", tenacity.Retrying, tenacity.AsyncRetrying)

_LONGEST_ATTEMPT_S = 86_400.0

_log = logging.getLogger("serving.client")


@dataclass(frozen=True)
class Retries:
    """How often and how patiently; `Retries(attempts=1)` sends everything once."""

    attempts: int = 6
    first_wait_s: float = 0.2
    longest_wait_s: float = 5.0
    attempt_timeout_s: float | None = None
    """Most time for one attempt; None: all that is left."""

    def wait_s(self, attempt: int, retry_after_s: float | None) -> float:
        """Seconds between attempt number `attempt` (from 1) and the next."""
        ceiling = min(self.longest_wait_s, self.first_wait_s * 2.0 ** (attempt - 1))
        return (retry_after_s or 0.0) + random.uniform(ceiling / 2, ceiling)  # noqa: S311  # it spreads, it guards nothing


class Deadline:
    """A moment until which a caller waits, `timeout_s` from now."""

    def __init__(self, timeout_s: float) -> None:
        if math.isnan(timeout_s):
            raise ServingError("timeout_s is not a number; give seconds, or math.inf for a call without a limit.")
        self._timeout_s = timeout_s
        self._at = time.monotonic() + timeout_s

    def left_s(self) -> float:
        """Seconds until then, negative after it."""
        return self._at - time.monotonic()

    def allowance_s(self, retries: Retries) -> float:
        """Seconds that an attempt which starts now may take; raises `DeadlineExceededError` if there are none.

        A day at most: what is longer, or without end, is more than the clocks of the libraries below can count.
        """
        left = self.left_s()
        if left <= 0:
            raise DeadlineExceededError(f"no answer within {self._timeout_s:g} s")
        return min(left, retries.attempt_timeout_s or _LONGEST_ATTEMPT_S, _LONGEST_ATTEMPT_S)


def repeatedly(attempt: Callable[[float], T], retries: Retries, deadline: Deadline) -> T:
    """`attempt(seconds that it may take)`, again while that is worthwhile and there is time."""
    again = _policy(tenacity.Retrying, retries, deadline)
    return again(lambda: attempt(deadline.allowance_s(retries)))


async def repeatedly_async(attempt: Callable[[float], Awaitable[T]], retries: Retries, deadline: Deadline) -> T:
    """`repeatedly`, for asyncio."""
    again = _policy(tenacity.AsyncRetrying, retries, deadline)

    async def once() -> T:
        return await attempt(deadline.allowance_s(retries))

    return await again(once)


def _policy(kind: type[Policy], retries: Retries, deadline: Deadline) -> Policy:
    return kind(
        retry=tenacity.retry_if_exception(_is_worthwhile),
        wait=lambda state: _wait_s(state, retries),
        stop=lambda state: _is_over(state, retries, deadline),
        before_sleep=_tell,
        reraise=True,
    )


def _is_worthwhile(error: BaseException) -> bool:
    return isinstance(error, CallError) and error.worth_repeating


def _wait_s(state: tenacity.RetryCallState, retries: Retries) -> float:
    error = _error_of(state)
    return retries.wait_s(state.attempt_number, error.retry_after_s if isinstance(error, CallError) else None)


def _is_over(state: tenacity.RetryCallState, retries: Retries, deadline: Deadline) -> bool:
    return state.attempt_number >= retries.attempts or state.upcoming_sleep >= deadline.left_s()


def _tell(state: tenacity.RetryCallState) -> None:
    _log.info(
        "attempt %d failed, trying again in %.2f s: %s", state.attempt_number, state.upcoming_sleep, _error_of(state)
    )


def _error_of(state: tenacity.RetryCallState) -> BaseException | None:
    return state.outcome.exception() if state.outcome is not None else None
