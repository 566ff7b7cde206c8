"""A load test as JUnit XML, which every pipeline shows: one test case for each objective.

    met      the case passes
    missed   the case has a `failure`, its message is the limit and what was measured
    invalid  a case of its own has an `error` that says why; the objectives are `skipped`, as nobody knows

The format is the one that Jenkins, GitLab and GitHub's actions agree on: `testsuites` › `testsuite` › `testcase`, with
counts. The standard library writes it; junitparser is well kept and made to read and merge such files, which is more
than three kinds of elements need.
"""

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from slipway.artifacts import Artifact
from slipway.capacity import CAPACITY, Capacity
from slipway.comparison import COMPARISON, Comparison
from slipway.timeline import TIMELINE, Timeline
from slipway.verdict import VERDICT, Verdict

_NOT_IN_XML = re.compile(r"[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 can't hold, escaped or not. Details of failures come from servers, which may say anything."""


@dataclass(frozen=True)
class Case:
    """One thing that is judged."""

    name: str
    state: Literal["met", "missed", "invalid", "skipped"]
    message: str
    detail: str = ""


@dataclass(frozen=True)
class Suite:
    """All that one load test judges."""

    name: str
    seconds: float
    created: str
    """ISO 8601."""
    cases: list[Case]
    properties: dict[str, str]
    output: str = ""


def write_junit(artifact: Artifact, file: Path) -> None:
    """Write the verdict, capacity or comparison `artifact` as JUnit XML to `file`."""
    tree = to_xml(suite_of(artifact))
    file.parent.mkdir(parents=True, exist_ok=True)
    ET.ElementTree(tree).write(file, encoding="utf-8", xml_declaration=True)


def suite_of(artifact: Artifact) -> Suite:
    """What `artifact` judges."""
    if artifact.manifest.kind == "capacity":
        return _capacity(artifact)
    if artifact.manifest.kind == "comparison":
        return _comparison(artifact)
    return _verdict(artifact)


def to_xml(suite: Suite) -> ET.Element:
    """The `testsuites` element."""
    count = {state: sum(case.state == state for case in suite.cases) for state in ("missed", "invalid", "skipped")}
    counts = {
        "tests": str(len(suite.cases)),
        "failures": str(count["missed"]),
        "errors": str(count["invalid"]),
        "time": f"{suite.seconds:.3f}",
    }
    name = _text(suite.name)
    root = ET.Element("testsuites", {"name": name, **counts})
    inner = ET.SubElement(
        root,
        "testsuite",
        {"name": name, **counts, "skipped": str(count["skipped"]), "timestamp": suite.created.partition("+")[0]},
    )
    properties = ET.SubElement(inner, "properties")
    for key, value in suite.properties.items():
        ET.SubElement(properties, "property", {"name": _text(key), "value": _text(value)})
    for case in suite.cases:
        element = ET.SubElement(
            inner,
            "testcase",
            {"classname": name, "name": _text(case.name), "time": f"{suite.seconds:.3f}"},
        )
        kinds = {"missed": ("failure", "objective missed"), "invalid": ("error", "invalid run")}
        if case.state in kinds:
            tag, kind = kinds[case.state]
            body = ET.SubElement(element, tag, {"message": _text(case.message), "type": kind})
            body.text = _text(case.detail or case.message)
        elif case.state == "skipped":
            ET.SubElement(element, "skipped", {"message": _text(case.message)})
    if suite.output:
        ET.SubElement(inner, "system-out").text = _text(suite.output)
    return root


def _verdict(artifact: Artifact) -> Suite:
    verdict = Verdict.model_validate(artifact.json(VERDICT))
    valid = verdict.outcome != "invalid"
    examples = "\n".join(verdict.examples)
    cases = [Case("the run is valid", "met" if valid else "invalid", verdict.reason)]
    for objective in verdict.objectives:
        name = f"{objective.name}: limit {objective.limit:g}"
        message = f"{objective.name} is {objective.measured:.6g}, the limit is {objective.limit:g}"
        state: Literal["met", "missed", "skipped"] = "skipped" if not valid else "met" if objective.met else "missed"
        cases.append(Case(name, state, message if valid else "the run is invalid", f"{verdict.reason}\n{examples}"))
    if TIMELINE in artifact.manifest.files:
        cases += _recoveries(Timeline.model_validate(artifact.json(TIMELINE)))
    properties = {"rate": verdict.offered_rate, "arrivals": verdict.arrivals, "seed": verdict.seed}
    seconds = verdict.warmup_s + verdict.duration_s
    return _suite(artifact, seconds, cases, properties | verdict.endpoint | verdict.machine, examples)


def _recoveries(timeline: Timeline) -> Iterable[Case]:
    for fault in timeline.faults:
        if fault.recover_within_s is None:
            continue
        took = fault.time_to_recovery_s
        said = "not within the run" if took is None else f"after {took:.2f} s"
        name = f"recovery from {fault.fault} at {fault.began_s:.1f} s: limit {fault.recover_within_s:g} s"
        yield Case(name, "met" if fault.met else "missed", f"recovered {said}", f"{fault.detail}; {fault.lost} lost")


def _capacity(artifact: Artifact) -> Suite:
    capacity = Capacity.model_validate(artifact.json(CAPACITY))
    probed = any(probe.answer != "invalid" for probe in capacity.probes)
    cases = [Case("the capacity was found", "met" if probed else "invalid", capacity.reason)]
    if capacity.at_least is not None:
        state: Literal["met", "missed", "skipped"] = "skipped" if not probed else "met" if capacity.met else "missed"
        cases.append(Case(f"capacity: at least {capacity.at_least:g} requests/s", state, capacity.reason))
    properties = {"arrivals": capacity.arrivals, "bottleneck": capacity.bottleneck.reason}
    return _suite(artifact, capacity.seconds, cases, properties | capacity.endpoint | capacity.machine, capacity.reason)


def _comparison(artifact: Artifact) -> Suite:
    comparison = Comparison.model_validate(artifact.json(COMPARISON))
    valid = comparison.outcome != "invalid"
    cases = [Case("the comparison is valid", "met" if valid else "invalid", comparison.reason)]
    if comparison.max_p99_ratio is not None:
        state: Literal["met", "missed", "skipped"] = (
            "skipped" if not valid else "missed" if comparison.outcome == "missed" else "met"
        )
        cases.append(Case(f"p99 ratio: limit {comparison.max_p99_ratio:g}", state, comparison.reason))
    seconds = artifact.manifest.recipe["loadtest"]["compare"]["block_s"] * len(comparison.blocks)
    properties = {"a": comparison.a.name, "b": comparison.b.name, "rate": comparison.rate}
    return _suite(artifact, seconds, cases, properties | comparison.machine, comparison.reason)


def _suite(artifact: Artifact, seconds: float, cases: list[Case], properties: dict[str, Any], output: str) -> Suite:
    manifest = artifact.manifest
    told = {"artifact": str(artifact.path), "digest": artifact.digest} | {k: str(v) for k, v in properties.items()}
    return Suite(f"slipway.loadtest.{manifest.name}", seconds, manifest.created, cases, told, output)


def _text(value: str) -> str:
    return _NOT_IN_XML.sub("\N{REPLACEMENT CHARACTER}", value)
