"""When requests come."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from loadtests.arrivals import PROCESSES, arrivals
from loadtests.arrivals.rescaling import FloatArray, Intensity
from loadtests.plan import require_arrivals
from slipway.errors import LoadTestError
from slipway.recipe import LoadTest

pytestmark = pytest.mark.unit

DRAWN: list[str | dict[str, Any]] = [
    {"process": "spikes", "every_s": 0.01, "length_s": 0.002} if name == "spikes" else name
    for name in sorted(set(PROCESSES) - {"replay"})
]
processes = st.sampled_from(DRAWN)
rates = st.floats(0.1, 2000)
durations = st.floats(0.01, 20)
seeds = st.integers(0, 2**32 - 1)


def draw(process: str | dict[str, Any], rate: float, duration_s: float, seed: int, warmup_s: float = 0.0) -> FloatArray:
    section = LoadTest.model_validate(
        {"arrivals": process, "rate": rate, "duration_s": duration_s, "warmup_s": warmup_s}
    )
    return np.concatenate([np.empty(0), *arrivals(np.random.default_rng(seed), section)])


@given(processes, rates, durations, st.floats(0, 5), seeds)
def test_times_ascend_within_the_window(
    process: str | dict[str, Any], rate: float, duration_s: float, warmup_s: float, seed: int
) -> None:
    times = draw(process, rate, duration_s, seed, warmup_s)
    assert (np.diff(times) >= 0).all()
    assert ((times >= -warmup_s) & (times < duration_s)).all()


@given(processes, rates, durations, seeds)
def test_the_same_seed_gives_the_same_schedule(
    process: str | dict[str, Any], rate: float, duration_s: float, seed: int
) -> None:
    np.testing.assert_array_equal(draw(process, rate, duration_s, seed), draw(process, rate, duration_s, seed))


EXPECTED = {
    "poisson": 1.0,
    "ramp": 0.55,
    "steps": 0.625,
    "diurnal": 1.0,
}


@given(st.sampled_from(sorted(EXPECTED)), rates, durations, seeds)
def test_as_many_come_as_the_shape_says(process: str, rate: float, duration_s: float, seed: int) -> None:
    count = len(draw(process, rate, duration_s, seed))
    mean = rate * duration_s * EXPECTED[process]
    # Chernoff: P(|count − mean| ≥ t) ≤ 2 exp(−t² / 2(mean + t/3)); this t makes it less than 1e-9.
    assert abs(count - mean) < 7.2 * np.sqrt(mean) + 15


@given(st.floats(1, 2000), st.floats(1, 20), seeds)
def test_a_longer_window_only_adds_arrivals(rate: float, duration_s: float, seed: int) -> None:
    for process in ("constant", "poisson"):
        whole, part = draw(process, rate, duration_s, seed), draw(process, rate, duration_s / 2, seed)
        np.testing.assert_allclose(part, whole[: len(part)], rtol=1e-9, atol=1e-9)


@given(rates, durations)
def test_constant_arrivals_are_one_gap_apart_and_as_many_as_fit(rate: float, duration_s: float) -> None:
    times = draw("constant", rate, duration_s, 0)
    np.testing.assert_allclose(np.diff(times), 1 / rate, rtol=1e-6)
    assert abs(len(times) - rate * duration_s) <= 1


@given(seeds)
def test_the_same_callers_come_faster_at_a_higher_rate(seed: int) -> None:
    slow, fast = draw("poisson", 10, 20, seed), draw("poisson", 20, 10, seed)
    np.testing.assert_allclose(fast, slow / 2)


SHAPES: dict[str, tuple[dict[str, Any], Intensity]] = {
    "poisson": ({"process": "poisson"}, Intensity(np.array([0.0, 500.0]), np.array([20.0, 20.0]))),
    "ramp": (
        {"process": "ramp", "start": 0.0, "end": 3.0},
        Intensity(np.array([0.0, 500.0]), np.array([0.0, 60.0])),
    ),
    "steps": (
        {"process": "steps", "levels": [0.5, 0.0, 2.0, 1.0]},
        Intensity(np.array([0.0, 125, 125, 250, 250, 375, 375, 500]), np.array([10.0, 10, 0, 0, 40, 40, 20, 20])),
    ),
    "spikes": (
        {"process": "spikes", "height": 8.0, "every_s": 50.0, "length_s": 5.0},
        Intensity(np.array([0.0, 25, 25, 30, 30, 50]), np.array([20.0, 20, 160, 160, 20, 20])),
    ),
    "diurnal": (
        {"process": "diurnal", "depth": 1.0, "period_s": 100.0},
        Intensity(np.linspace(0, 100, 20001), 20 * (1 - np.cos(np.linspace(0, 2 * np.pi, 20001)))),
    ),
}


@pytest.mark.parametrize("shape", sorted(SHAPES))
@pytest.mark.parametrize("seed", [1, 2])
def test_a_process_is_poisson_on_its_own_clock(shape: str, seed: int) -> None:
    """Brown et al. 2002: gaps of Λ(t) are exponential of mean 1 if, and only if, the rate is what it should be."""
    section, intensity = SHAPES[shape]
    gaps = np.diff(intensity.integral(draw(section, 20.0, 500.0, seed)))
    assert stats.kstest(gaps, "expon").pvalue > 0.001
    # Independent as well: one gap says nothing about the next.
    assert abs(np.corrcoef(gaps[1:], gaps[:-1])[0, 1]) < 4 / np.sqrt(len(gaps))


@given(st.lists(st.tuples(st.floats(0.01, 5), st.floats(0, 100)), min_size=2, max_size=8), st.floats(0, 0.999))
def test_the_inverse_of_an_intensity_undoes_its_integral(pieces: list[tuple[float, float]], share: float) -> None:
    times = np.concatenate([[0.0], np.cumsum([length for length, _ in pieces[1:]])])
    rates = np.array([rate for _, rate in pieces])
    rates[0] += 1
    intensity = Intensity(times, rates)
    expected = share * 3 * intensity.integral(times[-1:] * (1 - 1e-9))
    np.testing.assert_allclose(intensity.integral(intensity.inverse(expected)), expected, rtol=1e-6, atol=1e-6)


def test_warming_up_goes_on_at_the_rate_that_the_shape_begins_with() -> None:
    times = draw({"process": "ramp", "start": 2.0, "end": 0.0}, 50.0, 10.0, 3, warmup_s=20.0)
    assert (times < 0).sum() == pytest.approx(2000, rel=0.1)


DAY = "2030-01-01T00:00:"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", f"time\n{DAY}01.500Z\n{DAY}01.000Z\n{DAY}03.000Z\n"),
        ("a.csv", "time\n101.5\n101\n103\n"),
        ("a.jsonl", '{"time": 1.5}\n{"time": 1.0}\n{"time": 3.0}\n'),
        ("access.log", "".join(f'{{"time": "{DAY}{at}Z", "status": 200}}\n' for at in ("01.500", "01.000", "03.000"))),
    ],
)
def test_a_recording_is_replayed_in_order_from_its_first_arrival(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    replay = {"process": "replay", "source": f"file:{tmp_path / name}"}
    np.testing.assert_allclose(draw(replay, 1.0, 10.0, 0), [0.0, 0.5, 2.0])
    np.testing.assert_allclose(draw(replay | {"speed": 2.0}, 1.0, 10.0, 0, warmup_s=0.25), [-0.25, 0.0, 0.75])
    np.testing.assert_allclose(draw(replay, 1.0, 1.0, 0), [0.0, 0.5])


def test_the_nanoseconds_of_a_container_runtimes_log_are_read(tmp_path: Path) -> None:
    lines = ['{"time": "2026-01-01T00:00:00.123456789Z"}', '{"time": "2026-01-01T00:00:00.623456789Z"}']
    (tmp_path / "a.jsonl").write_text("\n".join(lines), encoding="utf-8")
    replay = {"process": "replay", "source": f"file:{tmp_path / 'a.jsonl'}"}
    np.testing.assert_allclose(draw(replay, 1.0, 10.0, 0), [0.0, 0.5], atol=1e-5)


def test_a_recording_in_milliseconds_that_is_read_as_seconds_says_how_to_read_it(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("time\n1764550000000\n1764550000500\n", encoding="utf-8")
    replay = {"process": "replay", "source": f"file:{tmp_path / 'a.csv'}"}
    section = LoadTest.model_validate({"arrivals": replay, "duration_s": 10, "warmup_s": 0.25})
    with pytest.raises(LoadTestError, match="1000 reads numbers in milliseconds"):
        require_arrivals(section)
    require_arrivals(section.model_copy(update={"arrivals": section.arrivals.model_copy(update={"speed": 1000.0})}))


def test_parquet_timestamps_are_replayed_too(tmp_path: Path) -> None:
    moments = pa.array([1_000_000_000, 1_250_000_000], pa.timestamp("ns", tz="UTC"))
    pq.write_table(pa.table({"at": moments}), tmp_path / "a.parquet")
    replay = {"process": "replay", "source": f"file:{tmp_path / 'a.parquet'}", "column": "at"}
    np.testing.assert_allclose(draw(replay, 1.0, 10.0, 0), [0.0, 0.25])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("when\n1\n", r"has no column 'time', only when; set arrivals\.column"),
        ("time\nyesterday\n", "not timestamps or seconds"),
        ("time\n", "has no timestamps"),
        ("time,x\n1,1\n,2\n", "some are missing"),
    ],
)
def test_a_recording_without_timestamps_is_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "a.csv").write_text(content, encoding="utf-8")
    with pytest.raises(LoadTestError, match=message):
        draw({"process": "replay", "source": f"file:{tmp_path / 'a.csv'}"}, 1.0, 1.0, 0)
