"""Drives a load: connects, asks once, waits for the start, and sends.

Open loop. Each arrival gets a task of its own when its time has come; nothing waits for an answer before it sends.
Recorded are:

    scheduled ──lag──► sent ──service──► answered         latency = answered − scheduled

`lag` is the generator's own doing: how late the loop woke and how long the task waited for its turn before it handed
the request to its client. A stalled server can't raise it: requests pile up as parked tasks, and neither a pool nor a
connection limit makes a later one wait (see `protocols`). A generator without enough CPU does raise it, and the same
delay also falls on reading answers, which it can't tell from the server's time; as the arrivals sample the loop at
random moments, the lag's p99 says how large that error can be. That is why a run with a high lag is invalid, not slow.

Ends at most `timeout_s` after the last arrival: what is still out then is a timeout. A generator that has fallen
`timeout_s` behind gives up, as no later request could be on time either.

The closed loop is in `closed_loop`.
"""

import asyncio
import contextlib
import gc
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field

from loadtests.access import Access
from loadtests.clock import Clock, Monotonic
from loadtests.closed_loop import keep_users_busy
from loadtests.exchange import End, Exchange
from loadtests.plan import Plan
from loadtests.preflight import check
from loadtests.protocols import CLIENTS, Client
from loadtests.samples import Page, Recorder
from loadtests.texts import Texts
from loadtests.vitals import watched
from slipway.recipe import LoadTest
from slipway.verdict import Generator

LEAD_S = 0.3
"""From the decision to start until the first arrival may come."""


@dataclass(frozen=True)
class Target:
    """Who is asked for what."""

    address: str
    model: str
    texts: Texts
    access: Access = field(default_factory=Access)


async def drive(
    plan: Iterator[Plan],
    section: LoadTest,
    target: Target,
    recorder: Recorder,
    ended: Callable[[End], None],
    *,
    start: Callable[[], Awaitable[float]] | None = None,
    clock: Clock | None = None,
    users: int = 1,
    worker: int = 0,
    clients: list[Client] | None = None,
) -> Generator:
    """Ask once over each protocol, then send `plan` and record what happens; returns how the generator did.

    `start` is awaited when all is ready and gives the moment on `clock` at which the plan begins, its warm-up first;
    by default that is at once. `users` are this `worker`'s in a closed loop. Raises `LoadTestError` before the load if
    it would say nothing, see `preflight`.
    """
    clock = clock or Monotonic()
    async with contextlib.AsyncExitStack() as cleanup:
        if clients is None:
            clients = [
                CLIENTS[protocol](target.address, target.model, target.access, section.connections)
                for protocol in section.protocols
            ]
        for client in clients:
            cleanup.push_async_callback(client.close)
        for protocol, client in zip(section.protocols, clients, strict=True):
            # Over each connection that was asked for, so that no handshake falls into the load.
            for _ in range(section.connections or 1):
                await check(client, protocol, target.texts.sent[0], section.timeout_s)
        # The first chunk may take a while: a recording is read for it.
        chunks = _begun(plan)
        # What is alive by now stays: out of every later collection, which else would walk it while requests are timed.
        gc.collect()
        gc.freeze()
        begins_s = await start() if start else clock.now() + LEAD_S
        zero_s = begins_s + section.warmup_s
        recorder.started(zero_s)
        async with watched() as vitals:
            exchange = Exchange(clients, section, target.texts, vitals, lambda: clock.now() - zero_s, ended)
            if section.loop == "closed":
                await keep_users_busy(chunks, section, (users, worker), exchange, recorder, clock, zero_s)
            else:
                await _keep_schedule(chunks, section, exchange, recorder, clock, zero_s)
            return vitals.summary(recorder.unsent)


async def _keep_schedule(
    chunks: Iterator[Plan], section: LoadTest, exchange: Exchange, recorder: Recorder, clock: Clock, zero_s: float
) -> None:
    requests: set[asyncio.Task[None]] = set()
    given_up = False
    with clock.alarm() as alarm:
        for chunk in chunks:
            page = recorder.begin(chunk)
            for row, due in enumerate(chunk.scheduled_s.tolist()):
                await alarm.wait_until(zero_s + due)
                if clock.now() - zero_s - due > section.timeout_s:
                    given_up = True
                    break
                _begin(exchange, page, row, requests)
            if given_up:
                break
    if requests:
        await asyncio.wait(requests, timeout=section.timeout_s)
    ended_s = clock.now() - zero_s
    recorder.end(ended_s)
    for request in requests:
        request.cancel()
    if given_up:
        for chunk in chunks:
            recorder.skip(chunk, ended_s)


def _begin(exchange: Exchange, page: Page, row: int, requests: set[asyncio.Task[None]]) -> None:
    request = asyncio.create_task(exchange.send(page, row))
    requests.add(request)
    request.add_done_callback(requests.discard)


def _begun(plan: Iterator[Plan]) -> Iterator[Plan]:
    """`plan` with its first chunk drawn."""
    first = next(plan, None)

    def chunks() -> Iterator[Plan]:
        if first is not None:
            yield first
        yield from plan

    return chunks()
