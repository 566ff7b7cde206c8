"""A plan as its user asks for it."""

import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

from autoscaling.growth import sizes
from autoscaling.hpa import DEFAULT_UP
from autoscaling.plan import Objective, make_plan
from autoscaling.pods import Startup
from autoscaling.policies import ByMetrics
from autoscaling.queueing import Service
from autoscaling.settings import AutoscalingValues, defaults, read_values
from autoscaling.traffic import spike
from autoscaling.traffic_argument import parse_traffic
from slipway.capacity import CAPACITY
from slipway.errors import SlipwayError
from slipway.recipe import LoadTest
from tests.loadtests.made_artifacts import capacity, made

pytestmark = pytest.mark.unit

SERVICE = Service(10.0, instances=2, variation=0.2, overhead_ms=1.0, max_in_flight=32)


def slipway(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "slipway", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.integration
def test_a_plan_that_holds_ends_with_0_and_one_that_does_not_with_2(tmp_path: Path) -> None:
    common = ["deploy", "plan", "--service", "10ms", "--instances", 2, "--slo", "100ms", "--duration", "5m"]
    held = slipway(*common, "--traffic", "constant:100", "--out", tmp_path / "plan", "--price", 0.5)
    assert held.returncode == 0, held.stderr
    assert "holds" in held.stdout
    assert "cost" in held.stdout
    assert json.loads((tmp_path / "plan" / "plan.json").read_text())["holds"] is True
    assert (tmp_path / "plan" / "plan.svg").read_text().startswith("<svg")
    missed = slipway(*common, "--traffic", "spike:50..5000")
    assert missed.returncode == 2
    assert "does not hold" in missed.stderr


@pytest.mark.integration
@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--traffic", "ramp:5"], "allowed"),
        (["--traffic", "sine:5..6"], "diurnal"),
        (["--traffic", "no-such.csv"], "no-such.csv does not exist"),
        (["--traffic", "constant:100", "--slo", "5ms"], "idle replica"),
        (["--traffic", "constant:100", "--max-in-flight", "1"], "max_in_flight"),
    ],
)
def test_what_can_not_be_planned_is_one_clear_line(options: list[str], words: str) -> None:
    given = ["--service", "10ms", "--instances", "2", "--slo", "100ms", "--duration", "1m", *options]
    ended = slipway("deploy", "plan", *given)
    assert ended.returncode == 1
    assert words in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.integration
def test_a_plan_begins_with_what_a_capacity_search_measured(tmp_path: Path) -> None:
    measured = made(tmp_path / "capacity", "capacity", {CAPACITY: capacity()}, LoadTest()).path
    planned = slipway("deploy", "plan", "--measured", measured, "--traffic", "constant:150", "--duration", "5m")
    assert planned.returncode == 0, planned.stderr
    assert "99 % within 50 ms holds" in planned.stderr
    # Its own word goes before what was measured.
    tighter = slipway("deploy", "plan", "--measured", measured, "--traffic", "constant:150", "--slo", "5ms")
    assert "idle replica" in tighter.stderr
    missing = slipway("deploy", "plan", "--traffic", "constant:150")
    assert missing.returncode == 1
    assert "--service is needed" in missing.stderr


def test_all_policies_meet_the_same_traffic() -> None:
    plan = make_plan(spike(50, 400, 300), SERVICE, defaults(2), Objective(100.0), Startup(10.0, 20.0))
    assert [outcome.policy for outcome in plan.outcomes] == [
        "autoscaler", "by CPU", "perfect knowledge", "always the most",
    ]  # fmt: skip
    assert len({outcome.requests for outcome in plan.outcomes}) == 1


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_arrivals_may_be_seconds_or_timestamps(suffix: str, tmp_path: Path) -> None:
    write = {"csv": pa.csv.write_csv, "parquet": pa.parquet.write_table}[suffix]
    write(pa.table({"at": [0.5, 0.7, 3.0]}), tmp_path / f"seconds.{suffix}")
    assert parse_traffic(str(tmp_path / f"seconds.{suffix}"), 60).rates.tolist() == [2.0, 0.0, 1.0]
    moments = pa.array([0, 200_000, 2_500_000], pa.timestamp("us"))
    write(pa.table({"at": moments}), tmp_path / f"moments.{suffix}")
    assert parse_traffic(str(tmp_path / f"moments.{suffix}"), 60).rates.tolist() == [2.0, 0.0, 1.0]


def test_a_table_without_times_is_named(tmp_path: Path) -> None:
    (tmp_path / "words.csv").write_text("at\n你好\n", encoding="utf-8")
    with pytest.raises(SlipwayError, match="times"):
        parse_traffic(str(tmp_path / "words.csv"), 60)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("constant:1e400", "rates from 0 to 10,000,000"),
        ("constant:-5", "rates from 0 to"),
        ("ramp:1..nan", "rates from 0 to"),
        ("spike:1..many", "must be numbers"),
        ("diurnal:5", "is no traffic; allowed"),
    ],
)
def test_a_shape_with_rates_that_can_not_be_says_which_can(text: str, words: str) -> None:
    with pytest.raises(SlipwayError, match=words):
        parse_traffic(text, 60)


def test_arrivals_that_are_years_apart_are_refused_before_their_seconds_are_counted(tmp_path: Path) -> None:
    (tmp_path / "mixed.csv").write_text("at\n0\n1e30\n", encoding="utf-8")
    with pytest.raises(SlipwayError, match="days are too long"):
        parse_traffic(str(tmp_path / "mixed.csv"), 60)


# Values


def test_values_that_are_left_out_are_the_charts(tmp_path: Path) -> None:
    file = tmp_path / "values.yaml"
    file.write_text("image: {tag: x}\nautoscaling: {maxReplicas: 7}\n", encoding="utf-8")
    values = read_values(file, 2)
    assert values.maxReplicas == 7
    assert values.targets == defaults(2).targets
    file.write_text("", encoding="utf-8")
    assert read_values(file, 2) == defaults(2)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("autoscaling: {minReplicas: 9, maxReplicas: 3}", "minReplicas 9"),
        ("autoscaling: {targets: {latency: 3}}", "autoscaling.targets"),
        ("autoscaling: {targets: {inFlight: -3}}", "inFlight"),
        ("autoscaling: {behavior: {scaleUp: {policies: []}}}", "policies"),
        ("autoscaling: 3", "mapping"),
        ("autoscaling: {", "can't be read"),
        ("a: 1\n---\nb: 2", "can't be read as values: [^\\n]+$"),
    ],
)
def test_values_that_can_not_be_are_named(text: str, words: str, tmp_path: Path) -> None:
    file = tmp_path / "values.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(SlipwayError, match=words):
        read_values(file, 2)


def test_from_zero_keda_starts_the_first_replica_and_takes_the_last(tmp_path: Path) -> None:
    file = tmp_path / "values.yaml"
    file.write_text(
        "autoscaling: {minReplicas: 0, keda: {cooldownPeriod: 120, prometheus: http://p}}", encoding="utf-8"
    )
    traffic = spike(0.0, 300.0, 3600)
    made_plan = make_plan(traffic, SERVICE, read_values(file, 2), Objective(100.0), Startup(10.0, 20.0))
    busy = [moment for moment in made_plan.chosen.moments if moment.rate]
    # Nobody is there when the traffic comes; half a minute later the first replica is.
    assert not busy[0].asked
    assert all(moment.ready for moment in busy[12:])
    assert made_plan.chosen.most_replicas > 1
    end = busy[-1].at_s
    sizes_after = {moment.at_s - end: moment.asked for moment in made_plan.chosen.moments if moment.at_s > end}
    assert all(size for after, size in sizes_after.items() if after < 120)
    assert not any(size for after, size in sizes_after.items() if after > 240)


def test_a_direction_that_says_nothing_has_the_defaults_of_the_api() -> None:
    policy = AutoscalingValues(targets={"inFlight": 4.0}).policy(spike(1.0, 2.0, 60))
    assert isinstance(policy, ByMetrics)
    assert policy.autoscaler.behavior is not None
    assert policy.autoscaler.behavior.up == DEFAULT_UP
    assert policy.autoscaler.behavior.down.stabilization_s == 300


# Growth


def test_growth_says_what_is_passed_on_the_way() -> None:
    found = sizes([100.0, 1e6], 100.0, headroom=0.5, least=2, rules=DEFAULT_UP)
    assert [size.replicas for size in found] == [2, 20_000]
    assert not found[0].beyond
    assert any("nodes" in limit for limit in found[1].beyond)
    assert found[1].minutes_to_grow > found[0].minutes_to_grow
