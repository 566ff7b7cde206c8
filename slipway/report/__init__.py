"""The report: what a run showed, as one page to send to a colleague and one table to read in a terminal.

It reads artifacts and nothing else, so that it can be made again a year later, on another machine, from
three directories. Every figure on the page is one that a stage wrote down; the report computes only what a
picture needs (smoothing, bins, a sample of the points) and what puts a figure in its place (a ratio, an
interval, the score of always guessing the largest class).

    collect(path)               an artifact or a run's directory → Evidence, every digest verified
    write_report(evidence, out) → a `report` artifact that holds report.html
    summary_table(evidence)     → what `slipway run` prints at the end
"""

from pathlib import Path

from slipway.artifacts import Artifact, canonical_digest, inputs_digest, read_artifact, write_artifact
from slipway.errors import SlipwayError
from slipway.report.evidence import Evidence
from slipway.report.gathering import collect, gather
from slipway.report.table import summary_table

PAGE = "report.html"

__all__ = ["PAGE", "Evidence", "collect", "gather", "report_inputs", "summary_table", "write_report"]


def report_inputs(evidence: Evidence) -> str:
    """Digest of everything that a report of `evidence` depends on, its templates included."""
    templates = sorted((Path(__file__).parent / "templates").iterdir())
    sources = {file.name: canonical_digest(file.read_text(encoding="utf-8")) for file in templates}
    return inputs_digest("report", {"notes": list(evidence.notes)}, evidence.artifacts, assets=sources)


def write_report(evidence: Evidence, out: Path) -> Artifact:
    """Write `report.html` as an artifact of kind `report` at `out`, whose parents are what it shows."""
    try:
        from slipway.report.page import render
    except ModuleNotFoundError as error:
        raise SlipwayError(
            f"A report needs {error.name}, which is not installed; try: pip install 'slipway[report]'."
        ) from error
    parents = evidence.artifacts
    with write_artifact(out, "report", name=evidence.name, inputs=report_inputs(evidence), parents=parents) as draft:
        page = render(evidence)
        (draft.path / PAGE).write_text(page, encoding="utf-8")
        draft.metrics["sections"] = [parent.manifest.kind for parent in parents]
        if evidence.load is not None:
            draft.metrics["outcome"] = evidence.load.verdict.outcome
    return read_artifact(out, "report")
