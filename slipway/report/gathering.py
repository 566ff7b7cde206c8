"""From artifacts on disk to evidence: found by lineage, verified, and never of two models.

A report may be asked for at any point of a run, so each part can be absent: a checkpoint alone gives
training and data, a verdict alone gives the load test. What can't be tolerated is a mixture: the accuracy
of one model beside the latency of another looks right and is wrong. Lineage decides: an artifact that
records another parent than the one beside it is refused by `gather`, and left out with a note by `collect`,
because a run's directory is in that state whenever an early stage was run again and the later ones were
not."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from slipway.artifacts import MANIFEST, Artifact, Kind, lineage, parent_of_kind, read_artifact
from slipway.bundle import FRONTIER, Bundle, Variant
from slipway.errors import ArtifactError
from slipway.report.evidence import (
    Compression,
    DataSummary,
    Evidence,
    History,
    Load,
    Quality,
    Training,
    number,
)
from slipway.timeline import TIMELINE, Timeline
from slipway.verdict import VERDICT, Verdict

_Parsed = TypeVar("_Parsed", bound=BaseModel)
_KINDS: tuple[Kind, ...] = ("checkpoint", "bundle", "verdict")


def collect(path: Path) -> Evidence:
    """Evidence of an artifact and its ancestors, or of a run's directory (checkpoint/, bundle/, verdict/).

    Raises `ArtifactError` if `path` is neither, or if a file of an artifact changed.
    """
    if (path / MANIFEST).is_file():
        start = read_artifact(path, verify=False)
        return gather(*(parent_of_kind(start, kind) for kind in _KINDS))
    found = {
        kind: read_artifact(path / kind, kind, verify=False) for kind in _KINDS if (path / kind / MANIFEST).is_file()
    }
    if not found:
        if not path.exists():
            raise ArtifactError(f"{path} does not exist.")
        what = "holds" if path.is_dir() else "is a file, and so"
        raise ArtifactError(f"{path} {what} neither an artifact nor a run (checkpoint/, bundle/ or verdict/ inside).")
    kept: dict[Kind, Artifact] = {}
    notes = []
    for kind, artifact in found.items():
        other = next((earlier for earlier in kept.values() if _made_from_another(artifact, earlier)), None)
        if other is None:
            kept[kind] = artifact
        else:
            notes.append(
                f"{kind}/ was made from another {other.manifest.kind} than the one in this run and is "
                "left out; run the recipe again to bring it up to date."
            )
    evidence = gather(*(kept.get(kind) for kind in _KINDS))
    return Evidence(evidence.training, evidence.compression, evidence.load, tuple(notes))


def gather(checkpoint: Artifact | None, bundle: Artifact | None, verdict: Artifact | None) -> Evidence:
    """Evidence of these artifacts, each read anew and verified.

    Raises `ArtifactError` if there is none, if a file changed, or if one was made from another than is given.
    """
    given = [artifact for artifact in (checkpoint, bundle, verdict) if artifact is not None]
    if not given:
        raise ArtifactError("There is nothing to report on: neither a checkpoint, nor a bundle, nor a verdict.")
    for artifact in given:
        read_artifact(artifact.path, artifact.manifest.kind)
    for i, child in enumerate(given):
        for earlier in given[:i]:
            if _made_from_another(child, earlier):
                raise ArtifactError(
                    f"{child.path} was not made from {earlier.path} but from another "
                    f"{earlier.manifest.kind}; a report of both would mix the figures of two models."
                )
    return Evidence(
        training=_training(checkpoint) if checkpoint else None,
        compression=_compression(bundle) if bundle else None,
        load=_load(verdict) if verdict else None,
    )


def artifacts_behind(evidence: Evidence) -> Iterator[tuple[Kind, str, Artifact | None]]:
    """Kind, digest and artifact (None if it is gone) of all that the evidence rests on, newest first."""
    seen: set[str] = set()
    for artifact in reversed(evidence.artifacts):
        chain: list[tuple[Kind, str, Artifact | None]] = [(artifact.manifest.kind, artifact.digest, artifact)]
        chain += [(parent.kind, parent.digest, found) for _, parent, found in lineage(artifact)]
        for kind, digest, found in chain:
            if digest not in seen:
                seen.add(digest)
                yield kind, digest, found


def _made_from_another(child: Artifact, earlier: Artifact) -> bool:
    recorded = {parent.digest for _, parent, _ in lineage(child) if parent.kind == earlier.manifest.kind}
    return bool(recorded) and earlier.digest not in recorded


def _training(artifact: Artifact) -> Training:
    metrics = _optional_json(artifact, "metrics.json") or {}
    history = _optional_json(artifact, "history.json")
    data = _optional_json(artifact, "data.json")
    return Training(
        artifact,
        before=Quality.parse((metrics.get("before") or {}).get("test")),
        after=Quality.parse((metrics.get("after") or {}).get("test")),
        history=History.parse(history) if history else None,
        data=DataSummary.parse(data) if data else None,
    )


def _compression(artifact: Artifact) -> Compression:
    test = _optional_json(artifact, "test.json") or {}
    try:
        variants = tuple(Variant.model_validate(row) for row in _optional_json(artifact, FRONTIER) or [])
    except ValidationError as error:
        raise ArtifactError(f"{artifact.path / FRONTIER} can't be read: {_first(error)}.") from error
    return Compression(
        artifact,
        spec=Bundle(artifact).spec,
        variants=variants,
        test=Quality.parse(test.get("metrics")),
        agreement=number(test.get("agreement")),
    )


def _load(artifact: Artifact) -> Load:
    verdict = _parsed(artifact, VERDICT, Verdict)
    return Load(
        artifact, verdict, _parsed(artifact, TIMELINE, Timeline) if TIMELINE in artifact.manifest.files else None
    )


def _parsed(artifact: Artifact, name: str, model: type[_Parsed]) -> _Parsed:
    try:
        return model.model_validate(artifact.json(name))
    except (ValidationError, ValueError, OSError) as error:
        what = _first(error) if isinstance(error, ValidationError) else str(error)
        raise ArtifactError(f"{artifact.path / name} can't be read: {what}.") from error


def _optional_json(artifact: Artifact, name: str) -> Any:
    """The content of a file that a report can do without; None if the artifact has none of that name."""
    if name not in artifact.manifest.files:
        return None
    try:
        return artifact.json(name)
    except ValueError as error:
        raise ArtifactError(f"{artifact.path / name} can't be read: {error}.") from error


def _first(error: ValidationError) -> str:
    first = error.errors()[0]
    return f"{'.'.join(str(part) for part in first['loc']) or 'JSON'}: {first['msg']}"
