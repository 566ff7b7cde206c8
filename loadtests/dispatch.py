"""Sends a plan on time, whatever the server does.

Each arrival gets a greenlet of its own when its time has come; nothing waits for an answer before it sends. What is
recorded:

    scheduled ──lag──► sent ──service──► answered         latency = answered − scheduled

`lag` is the generator's own doing: how late the loop woke and how long the greenlet waited for its turn before it
handed the request to its client. A stalled server can't raise it: requests pile up as parked greenlets, and neither
a pool nor a connection limit makes a later one wait (see `protocols`). A generator without enough CPU does raise
it, and the same delay also falls on reading answers, which it can't tell from the server's time; as the arrivals
sample the loop at random moments, the lag's p99 says how large that error can be. That is why a run with a high lag
is invalid and not slow.

Ends at most `timeout_s` after the last arrival: what is still out then is a timeout. A generator that has fallen
`timeout_s` behind gives up, as no later request could be on time either.
"""

import gc
import time
from collections.abc import Callable

import gevent
from gevent.pool import Group

from loadtests.clock import Alarm
from loadtests.plan import Plan
from loadtests.protocols import Client, RequestError, RequestTimeoutError
from loadtests.samples import Recorder
from loadtests.texts import Texts

Ended = Callable[[int, float, str, str], None]
"""`(row, latency_ms, outcome, detail)`: called as each request ends."""


def dispatch(
    plan: Plan, clients: list[Client], texts: Texts, recorder: Recorder, starts_at_s: float, ended: Ended
) -> None:
    """Send `plan`; row by row `plan.protocol` picks of `clients`, the measured window begins at `starts_at_s`.

    `starts_at_s` is a point of `time.monotonic()`; the warm-up lies before it.
    """
    timeout_s = max(client.timeout_s for client in clients)
    requests = Group()

    def now() -> float:
        return time.monotonic() - starts_at_s

    def send(row: int) -> None:
        text = int(plan.text_index[row])
        recorder.sent(row, now())
        outcome, detail = _ask(clients[plan.protocol[row]], texts.sent[text], texts.expected[text])
        answered = now()
        recorder.answered(row, answered, outcome, detail)
        ended(row, (answered - plan.scheduled_s[row]) * 1000, outcome, detail)

    # What is alive by now stays: out of every later collection, which else would walk it while requests are timed.
    gc.collect()
    gc.freeze()
    with Alarm() as alarm:
        for row, due in enumerate(plan.scheduled_s.tolist()):
            alarm.wait_until(starts_at_s + due)
            if now() - due > timeout_s:
                break
            requests.start(gevent.Greenlet(send, row))
    requests.join(timeout=timeout_s)
    recorder.close(now())
    requests.kill(block=False)


def _ask(client: Client, text: str, expected: str) -> tuple[str, str]:
    """`(outcome, detail)` of one request."""
    limit = gevent.Timeout(client.timeout_s)
    try:
        with limit:
            label = client.ask(text)
    except RequestTimeoutError as error:
        return "timeout", str(error)
    except RequestError as error:
        return "error", str(error)
    except gevent.Timeout as error:
        if error is not limit:
            raise
        return "timeout", f"no answer within {client.timeout_s:g} s"
    return ("ok", "") if label == expected else ("wrong", f"expected {expected}, got {label}")
