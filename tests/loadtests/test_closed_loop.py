"""Users who wait for their answers."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from loadtests.protocols import Answer
from loadtests.samples import read_samples
from loadtests.slo import judge
from slipway.recipe import LoadTest
from tests.loadtests.test_samples import Instant, VirtualTime, drive_virtually

pytestmark = pytest.mark.unit


class Working(Instant):
    """Takes 10 ms of virtual time for each request, one after the other; counts who waits."""

    def __init__(self, clock: VirtualTime) -> None:
        super().__init__("127.0.0.1:1", "m")
        self.clock = clock
        self.waiting = self.most_waiting = 0

    async def ask(self, texts: Sequence[str]) -> Answer:
        self.waiting += 1
        self.most_waiting = max(self.most_waiting, self.waiting)
        await asyncio.sleep(0)
        await self.clock.wait_until(self.clock.now() + 0.010)
        self.waiting -= 1
        return Answer(["a"] * len(texts))


def closed(**values: object) -> LoadTest:
    return LoadTest.model_validate(
        {"loop": "closed", "users": 4, "protocols": ["http"], "warmup_s": 0.5, "duration_s": 5.0, **values}
    )


def test_there_are_never_more_requests_out_than_users(tmp_path: Path) -> None:
    clock = VirtualTime()
    client = Working(clock)
    drive_virtually(closed(), tmp_path / "samples.parquet", client, clock)
    assert client.most_waiting == 4
    samples = read_samples(tmp_path / "samples.parquet")
    assert samples.num_rows > 400
    assert np.min(samples["scheduled_s"]) == pytest.approx(-0.5)
    assert np.max(samples["scheduled_s"]) < 5.0
    assert set(samples["outcome"].to_pylist()) == {"ok"}


def test_users_who_think_ask_less(tmp_path: Path) -> None:
    clock = VirtualTime()
    drive_virtually(closed(think_s=1.0, duration_s=50.0), tmp_path / "samples.parquet", Working(clock), clock)
    # 4 users, about a second for each request.
    assert read_samples(tmp_path / "samples.parquet").num_rows == pytest.approx(4 * 50.5, rel=0.3)


def test_a_verdict_says_that_it_was_a_closed_loop(tmp_path: Path) -> None:
    clock = VirtualTime()
    drive_virtually(closed(), tmp_path / "samples.parquet", Working(clock), clock)
    # Without the generator's own health: in virtual time it takes all of a core.
    verdict = judge(pq.read_table(tmp_path / "samples.parquet"), closed(), {})
    assert verdict.loop == "closed"
    assert verdict.users == 4
    assert "closed loop of 4 users" in verdict.reason
    assert any("coordinated omission" in caution for caution in verdict.cautions)
    assert verdict.offered_rate == pytest.approx(verdict.achieved_rate)
