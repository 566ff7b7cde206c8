"""One request, from its sending to its sample; the same for the open and the closed loop."""

import asyncio
from collections.abc import Callable, Sequence
from typing import NamedTuple

from loadtests.protocols import Client, RequestError
from loadtests.samples import Page
from loadtests.texts import Texts
from loadtests.vitals import Vitals
from slipway.recipe import LoadTest


class End(NamedTuple):
    """How a request ended."""

    protocol: str
    latency_ms: float
    outcome: str
    detail: str
    warmup: bool


class Exchange:
    """Sends requests over `clients` (in the order of the section's protocols) and checks every answer."""

    def __init__(
        self,
        clients: Sequence[Client],
        section: LoadTest,
        texts: Texts,
        vitals: Vitals,
        now: Callable[[], float],
        ended: Callable[[End], None],
    ) -> None:
        """`now` gives seconds on the plan's clock; `ended` is called as each request ends."""
        self._clients = clients
        self._protocols = section.protocols
        self._timeout_s = section.timeout_s
        self._texts = texts
        self._vitals = vitals
        self._now = now
        self._ended = ended

    async def send(self, page: Page, row: int) -> None:
        """Send the request of `row` and record what becomes of it."""
        protocol = page.plan.protocol[row]
        rows = page.plan.texts_of(row)
        page.sent(row, self._now())
        outcome, detail, version = await self._ask(self._clients[protocol], rows)
        answered = self._now()
        page.answered(row, answered, outcome, detail, version)
        scheduled = float(page.scheduled_s[row])
        self._ended(End(self._protocols[protocol], (answered - scheduled) * 1000, outcome, detail, scheduled < 0))

    async def _ask(self, client: Client, rows: list[int]) -> tuple[str, str, str]:
        """`(outcome, detail, version)`: every label of the answer must be the one that its version owes."""
        try:
            async with asyncio.timeout(self._timeout_s):
                answer = await client.ask([self._texts.sent[row] for row in rows])
        except TimeoutError:
            return "timeout", f"no answer within {self._timeout_s:g} s", ""
        except RequestError as error:
            self._vitals.exhausted += error.exhausted
            return "error", str(error), ""
        for place, (row, label) in enumerate(zip(rows, answer.labels, strict=True)):
            expected = self._texts.expected_of(row, answer.version)
            if label != expected:
                where = f"text {place + 1} of {len(rows)}: " if len(rows) > 1 else ""
                return "wrong", f"{where}expected {expected}, got {label}", answer.version
        return "ok", "", answer.version
