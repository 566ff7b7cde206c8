"""One row per request, and no more memory for a longer run."""

import asyncio
import contextlib
import heapq
import itertools
import tracemalloc
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from loadtests.dispatch import Target, drive
from loadtests.exchange import End
from loadtests.measured import of_file
from loadtests.plan import draw_plan, plan_chunks
from loadtests.protocols import Answer, Client
from loadtests.samples import (
    SCHEMA,
    STARTED,
    UNSENT,
    Recorder,
    merge_shares,
    read_samples,
    require_all,
    share_file,
)
from loadtests.slo import judge
from loadtests.texts import Texts
from loadtests.validity import why_invalid
from slipway.errors import LoadTestError
from slipway.recipe import LoadTest
from slipway.verdict import Generator
from tests.loadtests.test_validity import WELL

pytestmark = pytest.mark.unit


class VirtualTime:
    """A clock that goes on to the next moment that somebody waits for when nobody has anything to do: an hour passes
    in no time."""

    def __init__(self) -> None:
        self._now = 0.0
        self._waiting: list[tuple[float, int, asyncio.Future[None]]] = []
        self._ticking = False
        self._numbers = itertools.count()

    def now(self) -> float:
        return self._now

    @contextlib.contextmanager
    def alarm(self) -> Iterator["VirtualTime"]:
        yield self

    async def wait_until(self, moment_s: float) -> None:
        moment: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (moment_s, next(self._numbers), moment))
        if not self._ticking:
            self._ticking = True
            self._tick(rounds=4)
        await moment

    def _tick(self, rounds: int) -> None:
        # Whoever is ready has his turn first, and those whom he makes ready.
        if rounds:
            asyncio.get_running_loop().call_soon(self._tick, rounds - 1)
            return
        moment_s, _, moment = heapq.heappop(self._waiting)
        self._now = max(self._now, moment_s)
        moment.set_result(None)
        self._ticking = bool(self._waiting)
        if self._ticking:
            self._tick(rounds=4)


class Instant(Client):
    """Answers at once, always the same."""

    async def ask(self, texts: Sequence[str]) -> Answer:
        return Answer(["a"] * len(texts), "1")

    async def close(self) -> None:
        pass


def section(**values: object) -> LoadTest:
    return LoadTest.model_validate({"protocols": ["http"], "warmup_s": 1.0, **values})


def drive_virtually(load: LoadTest, file: Path, client: Client | None = None, clock: VirtualTime | None = None) -> int:
    """Drive `load` in virtual time; returns how many requests ended."""
    ended = 0

    def count(_: End) -> None:
        nonlocal ended
        ended += 1

    target = Target("127.0.0.1:1", "m", Texts(["x"] * 5, ["a"] * 5))
    clients = [client or Instant("127.0.0.1:1", "m")]
    with Recorder(file, list(load.protocols)) as recorder:
        generator = asyncio.run(
            drive(
                plan_chunks(load, 5), load, target, recorder, count,
                clock=clock or VirtualTime(), users=load.users, clients=clients,
            )
        )  # fmt: skip
        recorder.close([generator])
    return ended


def test_every_request_of_an_hour_has_its_row_in_the_order_of_the_schedule(tmp_path: Path) -> None:
    load = section(rate=10.0, duration_s=3600.0)
    ended = drive_virtually(load, tmp_path / "samples.parquet")
    samples = read_samples(tmp_path / "samples.parquet")
    plan = draw_plan(load, 5)
    assert ended == samples.num_rows == len(plan)
    np.testing.assert_array_equal(samples["scheduled_s"], plan.scheduled_s)
    np.testing.assert_array_equal(samples["text_index"], plan.text_index)
    assert pq.read_metadata(tmp_path / "samples.parquet").num_row_groups > 3
    assert judge(tmp_path / "samples.parquet", load, {}) == judge(samples, load, {})
    assert float(samples.schema.metadata[STARTED.encode()]) == pytest.approx(1.3)


def test_memory_does_not_grow_with_the_length_of_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Smaller pages, so that a few thousand requests are many of them.
    monkeypatch.setattr("loadtests.arrivals.rescaling.CHUNK", 512)

    def peak(hours: float) -> int:
        load = section(rate=1.0, duration_s=3600.0 * hours)
        tracemalloc.start()
        try:
            drive_virtually(load, tmp_path / "samples.parquet")
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(0.1)
    short, long = peak(1.0), peak(5.0)
    # 14,400 requests more, whose columns alone are 1 MB.
    assert long - short < 100_000


class Stuck(Instant):
    """Answers while it is asked whether it is there, then no more."""

    asked = 0

    async def ask(self, texts: Sequence[str]) -> Answer:
        self.asked += 1
        if self.asked > 1:
            await asyncio.sleep(3600)
        return Answer(["a"])


class Late(VirtualTime):
    """A machine that stands still for a minute when the third second comes."""

    async def wait_until(self, moment_s: float) -> None:
        await super().wait_until(moment_s)
        if 3 < self._now < 60:
            self._now += 60


def test_a_generator_that_falls_behind_gives_up_and_keeps_count(tmp_path: Path) -> None:
    load = section(rate=100.0, duration_s=200.0, timeout_s=5.0)
    drive_virtually(load, tmp_path / "samples.parquet", clock=Late())
    samples = read_samples(tmp_path / "samples.parquet")
    assert samples.num_rows == len(draw_plan(load, 5))
    unsent = sum(detail == UNSENT for detail in samples["detail"].to_pylist())
    (generator,) = of_file(tmp_path / "samples.parquet").generators
    assert generator.unsent == unsent > 19_000
    assert why_invalid(load, 0.0, [generator])


def test_what_has_no_answer_at_the_end_is_a_timeout(tmp_path: Path) -> None:
    load = section(rate=50.0, duration_s=1.0, warmup_s=0.0, timeout_s=0.2)
    drive_virtually(load, tmp_path / "samples.parquet", client=Stuck("127.0.0.1:1", "m"))
    samples = read_samples(tmp_path / "samples.parquet")
    assert set(samples["outcome"].to_pylist()) == {"timeout"}
    assert samples.num_rows == len(draw_plan(load, 5))


def test_nothing_is_left_of_a_run_that_fails(tmp_path: Path) -> None:
    with Recorder(tmp_path / "samples.parquet", ["http"]) as recorder:
        recorder.skip(draw_plan(section(rate=5.0, duration_s=1.0), 5), 0.0)
    assert list(tmp_path.iterdir()) == []


def test_shares_are_merged_in_the_order_of_the_schedule(tmp_path: Path) -> None:
    load = section(rate=100.0, duration_s=300.0)
    samples = tmp_path / "samples.parquet"
    for worker in range(3):
        with Recorder(share_file(samples, worker), ["http"]) as recorder:
            for chunk in plan_chunks(load, 5, worker=worker, workers=3):
                recorder.skip(chunk, 0.0)
            recorder.close([Generator.model_validate(WELL | {"unsent": worker})])
    merge_shares(samples, 3)
    merged = read_samples(samples)
    np.testing.assert_array_equal(merged["scheduled_s"], draw_plan(load, 5).scheduled_s)
    assert [generator.unsent for generator in of_file(samples).generators] == [0, 1, 2]
    assert list(tmp_path.iterdir()) == [samples]
    assert pq.read_schema(samples).remove_metadata() == SCHEMA


def test_a_page_says_which_version_answered(tmp_path: Path) -> None:
    with Recorder(tmp_path / "samples.parquet", ["http"]) as recorder:
        page = recorder.begin(draw_plan(section(rate=100.0, duration_s=1.0, arrivals="constant", warmup_s=0.0), 5))
        for row in range(100):
            page.sent(row, row / 100)
            page.answered(row, row / 100 + 0.01, "ok", version="12"[row % 2])
        recorder.end(1.0)
        recorder.close([])
    table: pa.Table = read_samples(tmp_path / "samples.parquet")
    assert table["version"].to_pylist() == ["1", "2"] * 50
    np.testing.assert_allclose(table["latency_ms"], 10.0)


def _planned(section: LoadTest, texts: int) -> pa.Table:
    """Samples of a run in which all went well, as far as `require_all` looks."""
    plan = draw_plan(section, texts)
    return pa.table({"scheduled_s": plan.scheduled_s, "text_index": plan.text_index})


@pytest.mark.parametrize("rate", [3.0, 900.0])
def test_samples_of_the_whole_plan_pass(tmp_path: Path, rate: float) -> None:
    # At the higher rate the plan is of several chunks, and the file of other row groups.
    section = LoadTest(rate=rate, duration_s=20.0)
    pq.write_table(_planned(section, 7), tmp_path / "samples.parquet", row_group_size=5000)
    require_all(tmp_path / "samples.parquet", section, 7)


def test_a_request_that_is_missing_or_double_or_another_is_seen(tmp_path: Path) -> None:
    section = LoadTest(rate=900.0, duration_s=20.0)
    whole = _planned(section, 7)
    last = whole.num_rows - 1
    double = pa.concat_tables([whole.slice(0, 9001), whole.slice(9000)])
    texts = whole["text_index"].to_numpy().copy()
    texts[9000] = (texts[9000] + 1) % 7
    for table in (
        pa.concat_tables([whole.slice(0, 9000), whole.slice(9001)]),
        whole.slice(0, last),
        double,
        pa.concat_tables([whole, whole.slice(last)]),
        whole.set_column(1, "text_index", pa.array(texts)),
        _planned(section.model_copy(update={"seed": 1}), 7),
    ):
        pq.write_table(table, tmp_path / "samples.parquet")
        with pytest.raises(LoadTestError, match="not the requests of the plan"):
            require_all(tmp_path / "samples.parquet", section, 7)
    require_all(tmp_path / "samples.parquet", section.model_copy(update={"loop": "closed"}), 7)


def test_the_start_of_merged_shares_is_by_the_clock_of_whoever_merges(tmp_path: Path) -> None:
    samples = tmp_path / "samples.parquet"
    for worker in range(2):
        schema = SCHEMA.with_metadata({STARTED: "123456.0"})
        pq.write_table(pa.Table.from_pylist([], schema=schema), share_file(samples, worker))
    merge_shares(samples, 2, 7.5)
    metadata = read_samples(samples).schema.metadata
    assert {key: metadata[key] for key in metadata if key == STARTED.encode()} == {STARTED.encode(): b"7.5"}
