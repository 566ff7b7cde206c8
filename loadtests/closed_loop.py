"""Closed loop: so many users, each of whom waits for the answer before the next request.

What it is good for: throughput at a given concurrency, and a comparison with tools that know nothing else. What it is
not good for: latency. When the server stalls, its users stop asking, so that a stall of two seconds is one slow request
a user instead of the hundreds that independent callers would have had ("coordinated omission"). So a verdict says
that it was a closed loop wherever it says anything.

Latency counts from the moment a user was ready to ask: `lag` is the generator's delay after that, as in the open loop.
"""

import asyncio
from collections.abc import Iterator

import numpy as np

from loadtests.clock import Clock
from loadtests.exchange import Exchange
from loadtests.plan import Plan
from loadtests.samples import Page, Recorder
from slipway.recipe import LoadTest


async def keep_users_busy(
    chunks: Iterator[Plan],
    section: LoadTest,
    users: tuple[int, int],
    exchange: Exchange,
    recorder: Recorder,
    clock: Clock,
    zero_s: float,
) -> None:
    """Let users ask from the warm-up to the end of the window; texts and protocols come from `chunks` in turn.

    `users` are how many, and the number of the worker that they belong to: each worker's pause differently.
    """
    many, worker = users
    rows = _Rows(chunks, recorder)
    pauses = np.random.default_rng([section.seed % 2**64, 1, worker])

    async def user() -> None:
        with clock.alarm() as alarm:
            ready_s = -section.warmup_s
            while True:
                ready_s += section.think_s * pauses.standard_exponential() if section.think_s else 0.0
                if ready_s >= section.duration_s:
                    return
                await alarm.wait_until(zero_s + ready_s)
                page, row = rows.take(ready_s)
                await exchange.send(page, row)
                ready_s = clock.now() - zero_s

    tasks = [asyncio.create_task(user()) for _ in range(many)]
    await asyncio.gather(*tasks)
    rows.finish()
    recorder.end(clock.now() - zero_s)


class _Rows:
    """Rows of the plan in the order in which users take them."""

    def __init__(self, chunks: Iterator[Plan], recorder: Recorder) -> None:
        self._chunks = chunks
        self._recorder = recorder
        self._page: Page | None = None
        self._next = 0

    def take(self, ready_s: float) -> tuple[Page, int]:
        if self._page is None or self._next == len(self._page.plan):
            self._page, self._next = self._recorder.begin(next(self._chunks)), 0
        row = self._next
        self._next += 1
        self._page.scheduled_s[row] = ready_s
        return self._page, row

    def finish(self) -> None:
        if self._page is not None:
            self._page.taken = self._next
