"""Sends a plan on time, whatever the server does.

Each arrival gets a task of its own when its time has come; nothing waits for an answer before it sends. Recorded are:

    scheduled ──lag──► sent ──service──► answered         latency = answered − scheduled

`lag` is the generator's own doing: how late the loop woke and how long the task waited for its turn before it handed
the request to its client. A stalled server can't raise it: requests pile up as parked tasks, and neither a pool nor a
connection limit makes a later one wait (see `protocols`). A generator without enough CPU does raise it, and the same
delay also falls on reading answers, which it can't tell from the server's time; as the arrivals sample the loop at
random moments, the lag's p99 says how large that error can be. That is why a run with a high lag is invalid, not slow.

Ends at most `timeout_s` after the last arrival: what is still out then is a timeout. A generator that has fallen
`timeout_s` behind gives up, as no later request could be on time either.
"""

import asyncio
import contextlib
import gc
import time
from collections.abc import Callable

from loadtests.clock import Alarm
from loadtests.plan import Plan
from loadtests.preflight import check
from loadtests.protocols import CLIENTS, Client, RequestError
from loadtests.samples import Recorder
from loadtests.texts import Texts
from slipway.recipe import LoadTest

Ended = Callable[[int, float, str, str], None]
"""`(row, latency_ms, outcome, detail)`: called as each request ends."""

_LEAD_S = 0.3


async def drive(
    plan: Plan, section: LoadTest, address: str, model: str, texts: Texts, recorder: Recorder, ended: Ended
) -> None:
    """Ask once over each protocol, then send `plan` and record what happens.

    Raises `LoadTestError` before the load if it would say nothing, see `preflight`.
    """
    async with contextlib.AsyncExitStack() as cleanup:
        clients = [CLIENTS[protocol](address, model) for protocol in section.protocols]
        for protocol, client in zip(section.protocols, clients, strict=True):
            cleanup.push_async_callback(client.close)
            await check(client, protocol, texts.sent[0], section.timeout_s)
        await _send_all(plan, clients, section, texts, recorder, ended)


async def _send_all(
    plan: Plan, clients: list[Client], section: LoadTest, texts: Texts, recorder: Recorder, ended: Ended
) -> None:
    timeout_s = section.timeout_s
    requests: set[asyncio.Task[None]] = set()
    starts_at_s = time.monotonic() + _LEAD_S + section.warmup_s
    recorder.started(starts_at_s)

    def now() -> float:
        return time.monotonic() - starts_at_s

    async def send(row: int) -> None:
        text = int(plan.text_index[row])
        recorder.sent(row, now())
        outcome, detail = await _ask(clients[plan.protocol[row]], texts.sent[text], texts.expected[text], timeout_s)
        answered = now()
        recorder.answered(row, answered, outcome, detail)
        ended(row, (answered - plan.scheduled_s[row]) * 1000, outcome, detail)

    # What is alive by now stays: out of every later collection, which else would walk it while requests are timed.
    gc.collect()
    gc.freeze()
    with Alarm() as alarm:
        for row, due in enumerate(plan.scheduled_s.tolist()):
            await alarm.wait_until(starts_at_s + due)
            if now() - due > timeout_s:
                break
            request = asyncio.create_task(send(row))
            requests.add(request)
            request.add_done_callback(requests.discard)
    if requests:
        await asyncio.wait(requests, timeout=timeout_s)
    recorder.close(now())
    for request in requests:
        request.cancel()


async def _ask(client: Client, text: str, expected: str, timeout_s: float) -> tuple[str, str]:
    """`(outcome, detail)` of one request."""
    try:
        async with asyncio.timeout(timeout_s):
            label = await client.ask(text)
    except TimeoutError:
        return "timeout", f"no answer within {timeout_s:g} s"
    except RequestError as error:
        return "error", str(error)
    return ("ok", "") if label == expected else ("wrong", f"expected {expected}, got {label}")
