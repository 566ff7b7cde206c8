"""What a load test means for whoever started it: an exit code, and the same in files for a pipeline.

0  every objective was met        2  one was missed        3  the run is invalid and judges nothing
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from loadtests.junit import write_junit
from slipway.artifacts import Artifact
from slipway.capacity import CAPACITY, Capacity
from slipway.comparison import COMPARISON, Comparison
from slipway.errors import EXIT_INVALID_RUN, EXIT_SLO_MISSED, ArtifactError
from slipway.places import require_file
from slipway.verdict import VERDICT, Verdict

_EXIT_CODES = {"met": 0, "missed": EXIT_SLO_MISSED, "invalid": EXIT_INVALID_RUN}


@dataclass(frozen=True)
class Outcome:
    """The judgement of one load test."""

    state: Literal["met", "missed", "invalid"]
    reason: str

    @property
    def exit_code(self) -> int:
        """Of the command that ran it."""
        return _EXIT_CODES[self.state]


def outcome_of(artifact: Artifact) -> Outcome:
    """Of a verdict, a capacity or a comparison."""
    if artifact.manifest.kind == "capacity":
        capacity = Capacity.model_validate(artifact.json(CAPACITY))
        if not any(probe.answer != "invalid" for probe in capacity.probes):
            return Outcome("invalid", capacity.reason)
        return Outcome("met" if capacity.met and capacity.interval else "missed", capacity.reason)
    if artifact.manifest.kind == "comparison":
        comparison = Comparison.model_validate(artifact.json(COMPARISON))
        return Outcome(comparison.outcome, comparison.reason)
    verdict = Verdict.model_validate(artifact.json(VERDICT))
    return Outcome(verdict.outcome, verdict.reason)


def require_outputs(out: Path, *, junit: Path | None = None, json_file: Path | None = None) -> None:
    """Raise `ArtifactError` if `write_outputs` could not write there, before an hour of load is spent on it.

    Nor may it within the artifact at `out`, which would then hold a file that its manifest doesn't list.
    """
    for file in filter(None, (junit, json_file)):
        require_file(file)
        if file.resolve().is_relative_to(out.resolve()):
            raise ArtifactError(f"{file} lies in the artifact {out}, which takes no other files; write it beside it.")


def write_outputs(artifact: Artifact, *, junit: Path | None = None, json_file: Path | None = None) -> None:
    """Write what a pipeline reads, where a path is given."""
    if junit is not None:
        write_junit(artifact, junit)
    if json_file is not None:
        json_file.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(summary_of(artifact), indent=2, ensure_ascii=False)
        json_file.write_text(text + "\n", encoding="utf-8")


def summary_of(artifact: Artifact) -> dict[str, Any]:
    """The judgement, where the artifact is, and all that its JSON says."""
    outcome = outcome_of(artifact)
    content = {"verdict": VERDICT, "capacity": CAPACITY, "comparison": COMPARISON}[artifact.manifest.kind]
    return {
        "kind": artifact.manifest.kind,
        "outcome": outcome.state,
        "exit_code": outcome.exit_code,
        "reason": outcome.reason,
        "artifact": str(artifact.path),
        "digest": artifact.digest,
        "content": artifact.json(content),
    }
