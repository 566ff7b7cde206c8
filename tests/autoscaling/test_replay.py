"""Decisions that were recorded, decided again from the manifest and from what the controller saw."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from autoscaling.manifest import Scaler
from autoscaling.replay import replay
from slipway.cli import cli
from slipway.errors import SlipwayError

pytestmark = [pytest.mark.unit]

PODS = {
    "type": "Pods",
    "pods": {"metric": {"name": "in_flight"}, "target": {"type": "AverageValue", "averageValue": "4"}},
}


def manifest(folder: Path, *metrics: dict[str, Any], **spec: Any) -> Path:
    file = folder / "hpa.yaml"
    whole = {"minReplicas": 2, "maxReplicas": 10, "metrics": list(metrics or [PODS]), "behavior": {}, **spec}
    file.write_text(
        yaml.safe_dump_all([{"kind": "Service"}, {"kind": "HorizontalPodAutoscaler", "spec": whole}]), encoding="utf-8"
    )
    return file


def resource(name: str, **target: Any) -> dict[str, Any]:
    return {"type": "Resource", "resource": {"name": name, "target": target}}


def trace(folder: Path, *rows: dict[str, Any]) -> Path:
    file = folder / "trace.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def decided(hpa: Path, rows: Path) -> list[int]:
    return [step.wanted for step in replay(Scaler.read(hpa), rows)]


def test_a_trace_may_be_no_more_than_averages(tmp_path: Path) -> None:
    rows = [{"at": 15 * step, "metrics": {"in_flight": value}} for step, value in enumerate([4, 8, 8, "4200m", 1])]
    # 2 pods at 8 of 4: 4; 4 at 8: 8; 4.2 is within the tolerance; down only after five minutes.
    assert decided(manifest(tmp_path), trace(tmp_path, *rows)) == [2, 4, 8, 8, 8]


def test_pods_that_are_not_listed_are_those_of_the_metrics(tmp_path: Path) -> None:
    rows = [
        {"at": 0, "replicas": 2, "metrics": {"in_flight": {"pod-a": 8, "pod-b": "8"}}},
        # A third pod has no metric, whether its name is there or not: it counts as idle.
        {"at": 15, "replicas": 3, "metrics": {"in_flight": {"pod-a": 8, "pod-b": "8"}}},
        {"at": 30, "replicas": 3, "metrics": {"in_flight": {"pod-a": 8, "pod-b": "8", "pod-c": None}}},
    ]
    assert decided(manifest(tmp_path), trace(tmp_path, *rows)) == [4, 4, 4]


def test_pods_without_times_are_old(tmp_path: Path) -> None:
    cpu = manifest(tmp_path, resource("cpu", averageUtilization=50))
    row = {"at": 0, "replicas": 2, "requests": "1", "metrics": {"cpu": "1"}}
    assert decided(cpu, trace(tmp_path, row)) == [4]
    # One that isn't ready never was, and counts as idle.
    pods = [{"name": "a"}, {"name": "b"}, {"name": "c", "ready": False}]
    row |= {"replicas": 3, "pods": pods, "metrics": {"cpu": {"a": "900m", "b": "900m", "c": "3"}}}
    assert decided(cpu, trace(tmp_path, row)) == [4]


def test_a_sample_may_say_when_it_was_taken(tmp_path: Path) -> None:
    cpu = manifest(tmp_path, resource("cpu", averageUtilization=50))
    young = {"name": "c", "started": 930, "became_ready": 960}

    def row(**sample: Any) -> dict[str, Any]:
        used = {"a": "500m", "b": "500m", "c": {"value": "2", **sample}}
        return {"at": 1000, "replicas": 3, "pods": ["a", "b", young], "requests": "1", "metrics": {"cpu": used}}

    # A sample of a starting pod counts if all of its window came after the pod was ready: 3 cores of 3, then.
    assert decided(cpu, trace(tmp_path, row())) == [3]
    assert decided(cpu, trace(tmp_path, row(window=30))) == [6]
    assert decided(cpu, trace(tmp_path, row(window=30, at=985))) == [3]


def test_a_pod_that_is_being_deleted_counts_for_one_value_only(tmp_path: Path) -> None:
    value = {"type": "External", "external": {"metric": {"name": "rate"}, "target": {"type": "Value", "value": "1"}}}
    pods = [{"name": "a"}, {"name": "b"}, {"name": "c", "deleting": True}]
    row = {"at": 0, "replicas": 2, "pods": pods, "metrics": {"in_flight": {"a": 8, "b": 8, "c": 80}, "rate": 2}}
    assert decided(manifest(tmp_path, PODS), trace(tmp_path, row)) == [4]
    assert decided(manifest(tmp_path, value), trace(tmp_path, row)) == [6]


def test_what_the_workload_was_set_to_goes_before_what_was_decided(tmp_path: Path) -> None:
    rows = [
        {"at": 0, "replicas": 3, "metrics": {"in_flight": 8}},
        {"at": 15, "replicas": 3, "metrics": {"in_flight": 4}},
    ]
    # The second line asks for 3 of 3, and 6 was recommended a moment ago.
    assert decided(manifest(tmp_path), trace(tmp_path, *rows)) == [6, 3]


def test_pods_without_a_metric_and_pending_pods_count_as_the_controller_counts_them(tmp_path: Path) -> None:
    pods = [{"name": "a"}, {"name": "b"}, {"name": "c", "running": False, "ready": False}]
    rows = [
        {"at": 0, "replicas": 3, "pods": pods, "metrics": {"in_flight": {"a": 12, "b": None}}},
        {"at": 15, "replicas": 3, "pods": pods, "metrics": {}},
    ]
    # b is missing and c pending: both idle when scaling up, so the average is 4, and nothing changes.
    assert decided(manifest(tmp_path), trace(tmp_path, *rows)) == [3, 3]


def test_a_total_and_a_utilization_are_read_as_such(tmp_path: Path) -> None:
    total = {
        "type": "External",
        "external": {"metric": {"name": "rate"}, "target": {"type": "AverageValue", "averageValue": "100"}},
    }
    cpu = {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}}
    rows = [{"at": 0, "replicas": 2, "metrics": {"rate": 310}}]
    assert decided(manifest(tmp_path, total), trace(tmp_path, *rows)) == [4]
    rows = [{"at": 1000, "replicas": 2, "requests": "2", "metrics": {"cpu": {"pod-0": "1900m", "pod-1": "1700m"}}}]
    assert decided(manifest(tmp_path, cpu), trace(tmp_path, *rows)) == [4]


STARTING = [{"name": "a"}, {"name": "b"}, {"name": "c", "ready": False, "started": 990, "became_ready": 990}]


@pytest.mark.parametrize("target", [{"averageUtilization": 50}, {"averageValue": "500m"}])
def test_a_starting_pod_says_nothing_by_its_cpu_be_it_a_share_or_an_amount(
    target: dict[str, Any], tmp_path: Path
) -> None:
    row = {
        "at": 1000,
        "replicas": 3,
        "pods": STARTING,
        "requests": "1",
        "metrics": {"cpu": {"a": "900m", "b": "900m", "c": "3"}},
    }
    # c counts as idle: 1.8 cores of 3 are 60 % of 50 %.
    assert decided(manifest(tmp_path, resource("cpu", **target)), trace(tmp_path, row)) == [4]


@pytest.mark.parametrize("target", [{"averageUtilization": 50}, {"averageValue": "512Mi"}])
def test_the_memory_of_a_starting_pod_counts(target: dict[str, Any], tmp_path: Path) -> None:
    row = {
        "at": 1000,
        "replicas": 3,
        "pods": STARTING,
        "requests": {"cpu": "1", "memory": "1Gi"},
        "metrics": {"memory": {"a": "1Gi", "b": "1Gi", "c": "1Gi"}},
    }
    assert decided(manifest(tmp_path, resource("memory", **target)), trace(tmp_path, row)) == [6]


def test_pods_may_request_different_amounts(tmp_path: Path) -> None:
    row = {
        "at": 1000,
        "replicas": 2,
        "pods": ["old", "new"],
        "requests": {"cpu": {"old": "1", "new": "3"}},
        "metrics": {"cpu": {"old": "900m", "new": "900m"}},
    }
    # 1.8 of 4 cores: 45 %, within the tolerance of 50.
    assert decided(manifest(tmp_path, resource("cpu", averageUtilization=50)), trace(tmp_path, row)) == [2]
    del row["requests"]["cpu"]["new"]  # type: ignore[index]
    # The controller then has no utilization.
    assert decided(manifest(tmp_path, resource("cpu", averageUtilization=10)), trace(tmp_path, row)) == [2]


def test_the_cpu_of_one_container_is_a_metric_of_its_own(tmp_path: Path) -> None:
    cpu = {"name": "cpu", "container": "triton", "target": {"type": "Utilization", "averageUtilization": 50}}
    both = manifest(
        tmp_path,
        resource("cpu", averageUtilization=50),
        {"type": "ContainerResource", "containerResource": cpu},
    )
    row = {
        "at": 1000,
        "replicas": 2,
        "requests": {"cpu": "2", "triton/cpu": "1"},
        "metrics": {"cpu": "1", "triton/cpu": "1"},
    }
    assert decided(both, trace(tmp_path, row)) == [4]


def test_a_utilization_needs_requests(tmp_path: Path) -> None:
    row = {"at": 1000, "replicas": 2, "requests": "1", "metrics": {"memory": "1Gi"}}
    hpa = manifest(tmp_path, resource("memory", averageUtilization=50))
    with pytest.raises(SlipwayError, match=r"line 1: .*requests of memory"):
        decided(hpa, trace(tmp_path, row))
    row["requests"] = {"memory": "0"}
    # Nobody requests anything: there is no utilization, and nothing changes.
    assert decided(hpa, trace(tmp_path, row)) == [2]


def test_recorded_decisions_are_compared(tmp_path: Path) -> None:
    hpa = manifest(tmp_path)
    rows = [{"at": 0, "metrics": {"in_flight": 8}, "desired": 4}, {"at": 15, "metrics": {"in_flight": 4}, "desired": 5}]
    command = ["deploy", "replay", str(hpa), str(trace(tmp_path, *rows))]
    result = CliRunner().invoke(cli, command, standalone_mode=False)
    assert result.return_value == 2, result.output
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [(line["desired"], line["recorded"]) for line in lines] == [(4, 4), (4, 5)]


def replayed(hpa: Path, rows: Path, *options: str) -> list[int]:
    result = CliRunner().invoke(cli, ["deploy", "replay", str(hpa), str(rows), *options])
    assert result.exit_code == 0, result.output
    return [json.loads(line)["desired"] for line in result.stdout.splitlines()]


@pytest.mark.parametrize("behavior", [None, {}, {"scaleUp": {"tolerance": 0}}])
def test_what_the_manifest_leaves_open_is_the_controllers(behavior: dict[str, Any] | None, tmp_path: Path) -> None:
    hpa = manifest(tmp_path, behavior=behavior)
    rows = [{"at": at, "metrics": {"in_flight": value}} for at, value in [(0, 4.8), (15, 2), (30, 2), (46, 2)]]
    # 4.8 of 4 is beyond a tolerance of 0.1, which the third behavior has stricter than the controller.
    up = 3 if behavior else 2
    assert replayed(hpa, trace(tmp_path, *rows)) == [3, 3, 3, 3]
    options = ["--tolerance", "0.3", "--downscale-stabilization", "40s"]
    assert replayed(hpa, trace(tmp_path, *rows), *options)[0] == up
    assert replayed(hpa, trace(tmp_path, *rows), "--downscale-stabilization", "40s") == [3, 3, 3, 2]


def test_how_long_cpu_is_not_trusted_is_the_controllers(tmp_path: Path) -> None:
    hpa = manifest(tmp_path, resource("cpu", averageUtilization=50))
    pods = ["a", "b", {"name": "c", "started": 970, "became_ready": 990}]
    row = {"at": 1000, "replicas": 3, "pods": pods, "requests": "1", "metrics": {"cpu": "1"}}
    assert replayed(hpa, trace(tmp_path, row)) == [4]
    assert replayed(hpa, trace(tmp_path, row), "--cpu-initialization-period", "30s") == [6]


TOTAL = {
    "type": "External",
    "external": {"metric": {"name": "rate"}, "target": {"type": "AverageValue", "averageValue": "100"}},
}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no lines"),
        ("\n \n", "has no lines"),
        ("{", "not JSON lines: line 1"),
        ("[" * 100_000, "not JSON lines: line 1"),
        ('{"at": 1}\n{"at": ' + "1" * 5000 + "}", "not JSON lines: line 2"),
        ("[]", "line 1: an object"),
        ('{"metrics": {}}', "line 1: at"),
        ('{"at": NaN}', "line 1: at: .*finite"),
        ('{"at": "noon"}', "line 1: at: .*'noon'"),
        ('{"at": 5}\n{"at": 4}', "line 2: .*goes back"),
        ('{"at": 0, "replicas": -1}', "line 1: replicas: .*-1"),
        ('{"at": 0, "replicas": 2.5}', "line 1: replicas: .*2.5"),
        ('{"at": 0, "replicas": 1e9}', "line 1: 1000000000 replicas are more"),
        ('{"at": 0, "desired": "some"}', "line 1: desired: .*'some'"),
        ('{"at": 0, "metrics": {"in_flight": "many"}}', r"line 1: metrics\.in_flight: 'many' is no quantity"),
        ('{"at": 0, "metrics": {"in_flight": {"a": []}}}', r"line 1: metrics\.in_flight\.a: \[\] is no quantity"),
        ('{"at": 0, "metrics": {"in_flight": {"a": {"at": 0}}}}', r"line 1: metrics\.in_flight\.a\.value"),
        ('{"at": 0, "metrics": {"rate": {"a": 1}, "in_flight": 2}}', r"line 1: metrics\.rate: one quantity"),
        ('{"at": 0, "metrics": {"inflight": 2, "rate": 1}}', r"metrics\.inflight is none of the .*: in_flight, rate"),
        ('{"at": 0, "metrics": 7}', "line 1: metrics"),
        ('{"at": 0, "pods": "ab"}', "line 1: pods"),
        ('{"at": 0, "pods": [{"nome": "a"}]}', r"line 1: pods\.0\.name"),
        ('{"at": 0, "pods": [{"name": "a", "redy": false}]}', r"line 1: pods\.0\.redy"),
        ('{"at": 0, "pods": ["a", {"name": "a"}]}', "line 1: pods: a is there 2 times"),
    ],
)
def test_a_line_that_can_not_be_read_is_named(text: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "trace.jsonl"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(SlipwayError, match=message) as error:
        decided(manifest(tmp_path, PODS, TOTAL), file)
    assert "trace.jsonl" in str(error.value)
    assert "\n" not in str(error.value)


def test_metrics_and_keys_that_the_autoscaler_does_not_have_are_left_alone(tmp_path: Path) -> None:
    row = {"at": 0, "replicas": 2, "note": "…", "metrics": {"in_flight": 8, "memory": "1Gi"}}
    assert decided(manifest(tmp_path), trace(tmp_path, row)) == [4]
    missing = {"at": 0, "replicas": 2, "metrics": None}
    assert decided(manifest(tmp_path), trace(tmp_path, missing)) == [2]
