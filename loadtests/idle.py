"""The server without load: how long one request takes alone, and when it is back to that.

Between two probes of a search the queue has to be empty, or the second one pays for the first. A request that its
client gave up may still be computed, so an idle client says nothing about the server; what does is a request that is
answered as fast as on an idle one, three times running.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from loadtests.access import Access
from loadtests.protocols import CLIENTS, Client, RequestError
from loadtests.texts import Texts
from slipway.errors import LoadTestError
from slipway.recipe import LoadTest

T = TypeVar("T")

_ASKED = 40
_WARM_UP = 5
_IN_A_ROW = 3
_DRAIN_S = 60.0
_PAUSE_S = 0.05


@dataclass(frozen=True)
class Unloaded:
    """Latency of one request at a time, in ms."""

    median_ms: float
    mean_ms: float


class Idle:
    """Asks the endpoint at `address` (`number:port`) one thing at a time."""

    def __init__(self, section: LoadTest, address: str, model: str, texts: Texts, access: Access | None = None) -> None:
        self._section = section
        self._address = address
        self._model = model
        self._texts = texts
        self._access = access

    def measure(self) -> Unloaded:
        """Ask 40 texts one after another. Raises `LoadTestError` if the endpoint doesn't answer them."""

        async def ask(client: Client) -> list[float]:
            sent = self._texts.sent
            return [await _time_of(client, sent[i % len(sent)]) for i in range(_WARM_UP + _ASKED)][_WARM_UP:]

        try:
            times = self._with_client(ask)
        except (RequestError, TimeoutError) as error:
            raise LoadTestError(
                f"The endpoint at {self._address} does not answer one request at a time: {_why(error)}."
            ) from error
        return Unloaded(float(np.median(times)), float(np.mean(times)))

    def drain(self, unloaded: Unloaded) -> bool:
        """Wait until it answers as if it were idle; False if it hasn't within a minute.

        Raises `LoadTestError` if it has not answered once by then.
        """
        calm_ms = 2 * unloaded.median_ms + 5

        async def wait(client: Client) -> bool:
            deadline = time.monotonic() + _DRAIN_S
            fast = 0
            why: RequestError | TimeoutError | None = None
            answered = False
            while fast < _IN_A_ROW:
                if time.monotonic() > deadline:
                    if why is not None and not answered:
                        raise LoadTestError(
                            f"The endpoint at {self._address} does not answer any more, for {_DRAIN_S:g} s: "
                            f"{_why(why)}."
                        ) from why
                    return False
                try:
                    fast = fast + 1 if await _time_of(client, self._texts.sent[0]) <= calm_ms else 0
                    answered = True
                except (RequestError, TimeoutError) as error:
                    fast, why = 0, error
                await asyncio.sleep(_PAUSE_S)
            return True

        return self._with_client(wait)

    def _with_client(self, work: Callable[[Client], Awaitable[T]]) -> T:
        async def run() -> T:
            client = CLIENTS[self._section.protocols[0]](self._address, self._model, self._access)
            try:
                return await work(client)
            finally:
                await client.close()

        return asyncio.run(run())


def _why(error: RequestError | TimeoutError) -> str:
    if isinstance(error, TimeoutError):
        return f"one request has had no answer for {_DRAIN_S:g} s"
    return str(error).removesuffix(".")


async def _time_of(client: Client, text: str) -> float:
    """Milliseconds of one request."""
    begun = time.perf_counter()
    async with asyncio.timeout(_DRAIN_S):
        await client.ask([text])
    return (time.perf_counter() - begun) * 1000
