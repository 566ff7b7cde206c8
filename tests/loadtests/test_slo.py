"""From samples to a verdict."""

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from rich.console import Console

from loadtests.samples import SCHEMA
from loadtests.slo import judge, latency_of
from loadtests.table import summary
from slipway.recipe import LoadTest, Slo
from slipway.verdict import GENERATORS
from tests.loadtests.test_validity import WELL

pytestmark = pytest.mark.unit


def samples(latencies: list[float], **columns: Any) -> pa.Table:
    """Samples, one a second, with `latencies` in ms; a column given as one value is the same in all rows."""
    defaults = {
        "scheduled_s": [float(second) for second in range(len(latencies))],
        "lag_ms": 0.1,
        "service_ms": latencies,
        "latency_ms": latencies,
        "protocol": "grpc",
        "outcome": "ok",
        "detail": "",
        "text_index": 0,
        "warmup": False,
        "texts": 1,
        "version": "1",
    }
    rows = {
        name: value if isinstance(value, list) else [value] * len(latencies)
        for name, value in (defaults | columns).items()
    }
    return pa.table(rows, schema=SCHEMA)


def section(**slo: float) -> LoadTest:
    return LoadTest(rate=1.0, duration_s=100.0, slo=Slo(**slo))


@given(st.lists(st.floats(0.01, 1e5), min_size=1, max_size=200))
def test_percentiles_are_numpys(latencies: list[float]) -> None:
    latency = latency_of(np.array(latencies))
    expected = np.percentile(latencies, [50, 90, 95, 99, 99.9])
    np.testing.assert_allclose([latency.p50, latency.p90, latency.p95, latency.p99, latency.p999], expected)
    assert latency.max == max(latencies)
    assert latency.requests == len(latencies)


def test_percentiles_interpolate_between_the_two_nearest_ranks() -> None:
    assert latency_of(np.arange(1.0, 101.0)).p99 == pytest.approx(99.01)


def test_an_objective_at_its_limit_is_met() -> None:
    verdict = judge(samples([10.0] * 100), section(p99_ms=10.0), {})
    assert verdict.outcome == "met"
    assert verdict.achieved_rate == 1.0
    assert verdict.reason == (
        "Met at 1 requests/s (poisson, 100 requests): p99 10.0 ms is within 10 ms, error rate 0.00% is within 0.00%."
    )


def test_one_objective_over_its_limit_is_enough_to_miss() -> None:
    verdict = judge(samples([10.0] * 90 + [80.0] * 10), section(p50_ms=20.0, p95_ms=50.0), {})
    assert verdict.outcome == "missed"
    assert [objective.met for objective in verdict.objectives] == [True, False, True, True]
    assert verdict.reason == "Missed at 1 requests/s (poisson, 100 requests): p95 80.0 ms is over 50 ms."


def test_objectives_that_are_left_out_are_not_judged() -> None:
    verdict = judge(samples([10_000.0]), section(), {})
    assert [objective.name for objective in verdict.objectives] == ["error_rate", "wrong"]
    assert verdict.outcome == "met"


def test_failures_count_by_outcome_and_are_shown() -> None:
    outcomes = ["ok"] * 96 + ["wrong", "error", "timeout", "timeout"]
    verdict = judge(samples([1.0] * 100, outcome=outcomes, detail="why"), section(error_rate=0.03), {})
    assert verdict.outcome == "missed"
    assert verdict.failures == {"error": 1, "timeout": 2, "wrong": 1}
    assert verdict.error_rate == pytest.approx(0.04)
    assert verdict.examples[0] == "grpc wrong: why"


def test_failures_keep_the_time_they_took() -> None:
    quick = judge(samples([1.0] * 98 + [5000.0] * 2, outcome=["ok"] * 98 + ["timeout"] * 2), section(), {})
    assert quick.latency.p99 == 5000.0


def test_warming_up_is_in_no_figure() -> None:
    table = samples([9000.0, 1.0], outcome=["error", "ok"], lag_ms=[900.0, 0.1], warmup=[True, False])
    verdict = judge(table, section(p99_ms=5.0), {})
    assert verdict.outcome == "met"
    assert verdict.scheduled == 1
    assert verdict.latency.max == 1.0


def test_a_late_generator_makes_the_run_invalid_even_if_the_objective_is_missed() -> None:
    verdict = judge(samples([900.0] * 100, lag_ms=[0.1] * 90 + [100.0] * 10), section(p99_ms=5.0), {})
    assert verdict.outcome == "invalid"
    assert verdict.dispatch_lag_p99_ms == pytest.approx(100)
    assert "say nothing about the server" in verdict.reason


def test_protocols_are_also_judged_apart() -> None:
    table = samples([1.0, 3.0, 5.0, 7.0], protocol=["grpc", "http", "grpc", "http"])
    verdict = judge(table, section(), {})
    assert {protocol: latency.p50 for protocol, latency in verdict.by_protocol.items()} == {"grpc": 3.0, "http": 5.0}


def test_the_summary_fits_a_terminal() -> None:
    outcomes = ["ok"] * 96 + ["wrong", "error", "timeout", "timeout"]
    verdict = judge(samples([10.0] * 100, outcome=outcomes, detail="[red]"), section(p50_ms=5.0, p99_ms=50.0), {})
    console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: PTH123, SIM115
    console.print(summary(verdict))
    text = console.export_text()
    assert "missed" in text
    assert "≤ 50" in text
    assert max(map(len, text.splitlines())) <= 100


def test_a_wrong_answer_is_a_breach_of_its_own_even_where_failures_are_allowed() -> None:
    verdict = judge(samples([1.0] * 100, outcome=["ok"] * 99 + ["wrong"], detail="why"), section(error_rate=0.5), {})
    assert verdict.outcome == "missed"
    assert verdict.wrong == 1
    assert "1 wrong answers is over 0" in verdict.reason


def test_goodput_is_what_was_right_and_in_time() -> None:
    latencies = [10.0] * 90 + [100.0] * 10
    outcomes = ["ok"] * 85 + ["error"] * 5 + ["ok"] * 10
    table = samples(latencies, outcome=outcomes, detail="")
    verdict = judge(table, section(error_rate=1.0, goodput=0.86, goodput_ms=50.0), {})
    assert verdict.goodput_share == pytest.approx(0.85)
    assert verdict.goodput_rate == pytest.approx(0.85)
    assert verdict.outcome == "missed"
    assert "goodput 85.00% is below 86.00%" in verdict.reason
    assert judge(table, section(error_rate=1.0, goodput=0.85, goodput_ms=50.0), {}).outcome == "met"


def test_goodput_goes_by_the_p99_unless_told() -> None:
    assert judge(samples([10.0, 60.0]), section(p99_ms=50.0), {}).goodput_share == 0.5
    with pytest.raises(ValidationError, match="set goodput_ms, or p99_ms"):
        section(goodput=0.9)


def test_p999_is_judged() -> None:
    verdict = judge(samples([1.0] * 1990 + [500.0] * 10), section(p99_ms=50.0, p999_ms=50.0), {})
    assert "p99.9 500.0 ms is over 50 ms" in verdict.reason
    assert [objective.met for objective in verdict.objectives][:2] == [True, False]


def test_percentiles_come_with_their_intervals() -> None:
    verdict = judge(samples(np.random.default_rng(1).exponential(10, 5000).tolist()), section(), {})
    for name, (low, high) in verdict.intervals.items():
        assert low <= getattr(verdict.latency, name)
        assert high is None or getattr(verdict.latency, name) <= high
    assert set(verdict.intervals) == {"p50", "p95", "p99", "p999"}


def test_a_limit_within_the_interval_is_a_caution() -> None:
    latencies = np.random.default_rng(1).exponential(10, 2000).tolist()
    limit = float(np.percentile(latencies, 99)) + 0.1
    (caution,) = judge(samples(latencies), section(p99_ms=limit), {}).cautions
    assert "the limit lies between" in caution
    assert judge(samples(latencies), section(p99_ms=10 * limit), {}).cautions == []


def test_too_few_requests_for_a_percentile_are_a_caution() -> None:
    (caution,) = judge(samples([1.0] * 100), section(p999_ms=50.0), {}).cautions
    assert caution == "100 requests are too few to bound p99.9: it may be higher than any of them."


def test_what_the_generator_says_of_itself_is_judged() -> None:
    said = json.dumps([WELL, WELL | {"clock_jump_s": 60.0}])
    table = samples([1.0] * 100).replace_schema_metadata({GENERATORS: said})
    verdict = judge(table, section(), {})
    assert verdict.outcome == "invalid"
    assert verdict.invalid_because == [verdict.reason]
    assert len(verdict.generators) == 2


def test_versions_are_told_apart_when_two_answered() -> None:
    table = samples([1.0, 3.0, 5.0, 7.0], version=["1", "2", "1", "2"])
    assert {version: latency.p50 for version, latency in judge(table, section(), {}).by_version.items()} == {
        "1": 3.0,
        "2": 5.0,
    }
    unanswered = samples([1.0, 3.0], version=["1", ""], outcome=["ok", "timeout"], detail="")
    assert judge(unanswered, section(), {}).by_version == {}


def test_the_offered_rate_of_a_changing_load_is_its_mean() -> None:
    load = LoadTest.model_validate({"rate": 10.0, "duration_s": 20.0, "arrivals": "ramp"})
    assert judge(samples([1.0] * 110), load, {}).offered_rate == pytest.approx(5.5)


def test_the_summary_of_a_closed_loop_says_so() -> None:
    load = LoadTest(loop="closed", users=3, slo=Slo(p99_ms=50.0))
    console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: PTH123, SIM115
    console.print(summary(judge(samples([10.0] * 100), load, {})))
    text = console.export_text()
    assert "closed loop, 3 users" in text
    assert "coordinated" in text
