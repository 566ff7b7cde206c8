"""What a run's samples turn into, and that it is the same in any order and any size."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadtests.histogram import Histograms
from loadtests.timeline import tell
from loadtests.trend import trend_of
from slipway.timeline import Reading, Timeline, Usage
from tests.loadtests.synthetic import Happening, Queue, write

pytestmark = pytest.mark.unit


def told(table: pa.Table, folder: Path, duration_s: float, **more: object) -> Timeline:
    return tell(write(table, folder / "samples.parquet"), duration_s, 0.0, **more)  # type: ignore[arg-type]


def readings(memory_mb: np.ndarray) -> list[Reading]:
    return [
        Reading(at_s=float(at), usage=Usage(cpu_cores=1, cores=2, rss_mb=float(mb)), work=None)
        for at, mb in enumerate(memory_mb)
    ]


def test_every_measured_request_is_in_one_window(tmp_path: Path) -> None:
    table = Queue().simulate(100, 30, warmup_s=5)
    timeline = told(table, tmp_path, 30)
    measured = int((~table["warmup"].to_numpy()).sum())
    assert sum(window.scheduled for window in timeline.windows) == measured
    assert sum(each.count for each in timeline.histogram) == measured
    assert timeline.windows[0].start_s == 0
    assert timeline.windows[-1].end_s == 30
    assert all(a.end_s == b.start_s for a, b in zip(timeline.windows, timeline.windows[1:], strict=False))


@given(st.lists(st.floats(0.02, 1e6), min_size=1, max_size=300), st.floats(0, 100))
@settings(max_examples=25, deadline=None)
def test_a_percentile_of_a_histogram_is_within_its_bin(values: list[float], percent: float) -> None:
    histograms = Histograms(1)
    histograms.add(np.zeros(len(values), np.int64), np.array(values))
    found = histograms.percentile(0, percent)
    exact = float(np.percentile(values, percent, method="inverted_cdf"))
    assert found == pytest.approx(exact, rel=0.011)


def test_the_order_of_the_rows_does_not_matter(tmp_path: Path) -> None:
    table = Queue(happenings=(Happening(3, 1, "error", 0.5),)).simulate(80, 10)
    shuffled = table.take(pa.array(np.random.default_rng(0).permutation(table.num_rows)))
    one, other = told(table, tmp_path, 10), told(shuffled, tmp_path, 10)
    assert one.windows == other.windows
    assert one.percentiles == other.percentiles


def test_a_night_is_as_small_as_a_minute(tmp_path: Path) -> None:
    table = Queue(happenings=(Happening(100, 300, "timeout"),)).simulate(100, 400)
    timeline = told(table, tmp_path, 400)
    assert table.num_rows > 30_000
    assert len(timeline.windows) <= 120
    assert len(timeline.dots) < 4000
    assert len(timeline.model_dump_json()) < 500_000
    slowest = max(table["latency_ms"].to_pylist())
    assert max(dot.latency_ms for dot in timeline.dots) == slowest


def test_percentiles_reach_to_the_slowest_request(tmp_path: Path) -> None:
    table = Queue(happenings=(Happening(5, 2, "stall"),)).simulate(100, 20)
    timeline = told(table, tmp_path, 20)
    latency = table["latency_ms"].to_numpy()
    last = timeline.percentiles[-1]
    assert last.quantile > 1 - 2 / len(latency)
    assert last.latency_ms > 1900
    for point in timeline.percentiles:
        exact = np.quantile(latency, point.quantile, method="inverted_cdf")
        assert point.latency_ms == pytest.approx(exact, rel=0.011)


def test_a_server_that_keeps_up_has_no_backlog_and_one_that_does_not_has(tmp_path: Path) -> None:
    queue = Queue(instances=2, service_ms=10)
    assert told(queue.simulate(120, 20), tmp_path, 20).backlog_s_per_s < 0.01
    # 10 % more than 2 instances can do: a tenth of every second is left over.
    growth = told(queue.simulate(220, 20), tmp_path, 20).backlog_s_per_s
    assert growth == pytest.approx(0.09, abs=0.05)


def test_memory_that_grows_is_drift_and_memory_that_only_wavers_is_not(tmp_path: Path) -> None:
    table = Queue().simulate(50, 60)
    noise = np.random.default_rng(0).normal(0, 2, 60)
    leaking = told(table, tmp_path, 60, readings=readings(500 + 3 * np.arange(60) + noise))
    steady = told(table, tmp_path, 60, readings=readings(500 + noise))
    (leak,) = [drift for drift in leaking.drifts if drift.figure == "server memory"]
    (rest,) = [drift for drift in steady.drifts if drift.figure == "server memory"]
    assert leak.drifts
    assert leak.per_hour == pytest.approx(3 * 3600, rel=0.1)
    assert not rest.drifts


def test_what_a_server_allocates_at_first_is_no_leak(tmp_path: Path) -> None:
    memory = 500 + 300 * (1 - np.exp(-np.arange(60) / 4)) + np.random.default_rng(0).normal(0, 1, 60)
    timeline = told(Queue().simulate(50, 60), tmp_path, 60, readings=readings(memory))
    assert not any(drift.drifts for drift in timeline.drifts if drift.figure == "server memory")


def test_a_burst_of_errors_is_found_and_an_even_rate_of_them_is_none(tmp_path: Path) -> None:
    burst = Queue(happenings=(Happening(20, 3, "error", 0.8),)).simulate(100, 60)
    even = Queue(happenings=(Happening(0, 60, "error", 0.1),)).simulate(100, 60)
    (found,) = told(burst, tmp_path, 60).bursts
    assert found.start_s <= 20
    assert 22 <= found.end_s <= 25
    assert told(even, tmp_path, 60).bursts == []


@given(st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_a_trend_is_seldom_seen_where_there_is_none(seed: int) -> None:
    values = np.random.default_rng(seed).normal(size=30)
    trend = trend_of(np.arange(30.0), values)
    assert trend is not None
    assert trend.p_value > 1e-5


def test_one_wild_point_does_not_bend_a_trend() -> None:
    values = 2.0 * np.arange(30)
    values[20] = 1e6
    trend = trend_of(np.arange(30.0), values)
    assert trend is not None
    assert trend.slope == pytest.approx(2)
    assert trend.p_value < 1e-6
