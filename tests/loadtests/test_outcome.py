"""What a pipeline gets: exit codes, JUnit XML, JSON."""

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from loadtests.junit import Case, Suite, to_xml
from loadtests.outcome import outcome_of, write_outputs
from slipway.artifacts import Artifact
from slipway.recipe import LoadTest
from slipway.timeline import FaultRecord
from tests.loadtests.made_artifacts import capacity_artifact, comparison_artifact, verdict_artifact
from tests.loadtests.synthetic import Happening, Queue

pytestmark = pytest.mark.unit

# The elements and attributes that readers of the format agree on (Jenkins' and GitLab's schemas).
ALLOWED = {
    "testsuites": ({"name", "tests", "failures", "errors", "time"}, {"testsuite"}),
    "testsuite": (
        {"name", "tests", "failures", "errors", "skipped", "time", "timestamp"},
        {"properties", "testcase", "system-out"},
    ),
    "properties": (set(), {"property"}),
    "property": ({"name", "value"}, set()),
    "testcase": ({"classname", "name", "time"}, {"failure", "error", "skipped"}),
    "failure": ({"message", "type"}, set()),
    "error": ({"message", "type"}, set()),
    "skipped": ({"message"}, set()),
    "system-out": (set(), set()),
}


def section(**more: object) -> LoadTest:
    values = {"rate": 50.0, "duration_s": 10.0, "warmup_s": 0.0, "slo": {"p50_ms": 500.0, "p99_ms": 500.0}, **more}
    return LoadTest.model_validate(values)


def junit(artifact: Artifact, folder: Path) -> ET.Element:
    file = folder / "deep" / "junit.xml"
    write_outputs(artifact, junit=file)
    root = ET.parse(file).getroot()  # noqa: S314  (written a moment ago)
    require_shape(root)
    return root


def require_shape(element: ET.Element) -> None:
    attributes, children = ALLOWED[element.tag]
    assert set(element.attrib) == attributes, element.tag
    assert {child.tag for child in element} <= children, element.tag
    if element.tag in ("testsuites", "testsuite"):
        cases = list(element.iter("testcase"))
        assert int(element.get("tests", "")) == len(cases)
        assert int(element.get("failures", "")) == sum(case.find("failure") is not None for case in cases)
        assert int(element.get("errors", "")) == sum(case.find("error") is not None for case in cases)
        float(element.get("time", ""))
    for child in element:
        require_shape(child)


def states(root: ET.Element) -> dict[str, str]:
    return {case.get("name", ""): case[0].tag if len(case) else "passed" for case in root.iter("testcase")}


def test_a_met_objective_is_exit_code_0_and_passing_cases(tmp_path: Path) -> None:
    artifact = verdict_artifact(tmp_path / "verdict", Queue().simulate(50, 10), section())
    assert outcome_of(artifact).exit_code == 0
    assert set(states(junit(artifact, tmp_path)).values()) == {"passed"}


def test_each_objective_that_is_missed_is_a_failure_of_its_own_with_its_figures(tmp_path: Path) -> None:
    load = section(slo={"p50_ms": 500.0, "p99_ms": 1.5})
    artifact = verdict_artifact(tmp_path / "verdict", Queue().simulate(50, 10), load)
    assert outcome_of(artifact).exit_code == 2
    root = junit(artifact, tmp_path)
    found = states(root)
    assert found["p99_ms: limit 1.5"] == "failure"
    assert found["p50_ms: limit 500"] == "passed"
    (failure,) = root.iter("failure")
    assert "the limit is 1.5" in failure.get("message", "")


def test_an_invalid_run_is_exit_code_3_one_error_and_no_judgement(tmp_path: Path) -> None:
    load = section(max_dispatch_lag_ms=0.0001)
    artifact = verdict_artifact(tmp_path / "verdict", Queue().simulate(50, 10), load)
    assert outcome_of(artifact).exit_code == 3
    found = states(junit(artifact, tmp_path))
    assert found.pop("the run is valid") == "error"
    assert set(found.values()) == {"skipped"}


def test_a_recovery_that_took_too_long_is_a_failure_though_the_objective_held(tmp_path: Path) -> None:
    late = FaultRecord(
        fault="kill-stub", detail="SIGKILL to stub 7", began_s=3, ended_s=3, recovered_s=8, recover_within_s=2,
        requests=9, lost=4, wrong=0,
    )  # fmt: skip
    artifact = verdict_artifact(tmp_path / "verdict", Queue().simulate(50, 10), section(), [late])
    outcome = outcome_of(artifact)
    assert outcome.exit_code == 2
    assert "kill-stub at 3.0 s" in outcome.reason
    assert states(junit(artifact, tmp_path))["recovery from kill-stub at 3.0 s: limit 2 s"] == "failure"


@pytest.mark.parametrize(("at_least", "code"), [(None, 0), (200.0, 0), (300.0, 2)])
def test_a_capacity_below_what_is_asked_for_is_a_miss(tmp_path: Path, at_least: float | None, code: int) -> None:
    artifact = capacity_artifact(tmp_path / "capacity", at_least)
    assert outcome_of(artifact).exit_code == code
    assert ("failure" in states(junit(artifact, tmp_path)).values()) == (code == 2)


@pytest.mark.parametrize(("outcome", "code"), [("met", 0), ("missed", 2), ("invalid", 3)])
def test_a_comparison_has_the_same_codes(tmp_path: Path, outcome: str, code: int) -> None:
    artifact = comparison_artifact(tmp_path / "comparison", 1.1, outcome)
    assert outcome_of(artifact).exit_code == code
    junit(artifact, tmp_path)


def test_json_says_the_outcome_and_where_the_rest_is(tmp_path: Path) -> None:
    artifact = verdict_artifact(tmp_path / "verdict", Queue().simulate(50, 10), section())
    write_outputs(artifact, json_file=tmp_path / "out.json")
    told = json.loads((tmp_path / "out.json").read_text())
    assert (told["kind"], told["outcome"], told["exit_code"]) == ("verdict", "met", 0)
    assert told["artifact"] == str(artifact.path)
    assert told["content"]["latency"]["p99"] > 0


def test_whatever_a_server_says_is_valid_xml(tmp_path: Path) -> None:
    wild = "\x00 \x1b[31m <b>&amp; ]]> \ud800 \uffff 很好 😀"
    suite = Suite(wild, 1.0, "2026-01-01T00:00:00+00:00", [Case(wild, "missed", wild, wild)], {wild: wild}, wild)
    text = ET.tostring(to_xml(suite), encoding="utf-8")
    root = ET.fromstring(text)  # noqa: S314  (written a moment ago)
    require_shape(root)
    assert "很好 😀" in root[0][1].get("name", "")


def test_failures_of_requests_are_in_the_output(tmp_path: Path) -> None:
    table = Queue(happenings=(Happening(2, 1, "error"),)).simulate(50, 10)
    root = junit(verdict_artifact(tmp_path / "verdict", table, section()), tmp_path)
    assert "made error" in (next(root.iter("system-out")).text or "")
