"""`hub:org/name@revision`: a repository of the Hugging Face hub, through its own client and cache.

The client resumes, locks and retries by itself, and honours HF_ENDPOINT, HF_TOKEN, HF_HOME and
HF_HUB_OFFLINE; its cache is shared with whatever else on the machine uses it. We add three things:

- the list of files comes first, so that a model is fetched with one copy of its weights (safetensors, or not
  at all), and so that a fetch that was cut off is never taken for a whole one;
- the cache is verified: it names each file by the hash that the hub gave (sha256 for large files, git's sha1
  for small);
- a record of what a commit consists of, beside our own cache, so that a pinned commit needs no network
  afterwards.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from slipway.artifacts import sha256_file
from slipway.assets.cache import cache_root, locked
from slipway.assets.contents import Asset, digest_of_tree
from slipway.errors import AssetError
from slipway.places import is_full_disk
from slipway.progress import console, say
from slipway.references import Reference

_MODEL_FILES = (
    "*.json",
    "*.safetensors",
    "*.txt",
    "*.model",
    "*.spm",
    "*.jinja",
    "*.tiktoken",
    "LICENSE*",
    "README.md",
)
_OTHER_FORMATS = ("onnx", "openvino", "coreml", "tflite", "flax", "original", "gguf")
"""Folders that hold the same weights once more."""
_TABLE_FILES = (
    "*.parquet",
    "*.csv",
    "*.tsv",
    "*.json",
    "*.jsonl",
    "*.ndjson",
    "*.arrow",
    "*.gz",
    "README.md",
)
_COMMIT = re.compile(r"[0-9a-f]{40}")


def fetch_from_hub(reference: Reference, kind: Literal["model", "dataset"], cache: Path | None) -> Asset:
    """Fetch `reference` and verify what is in the cache.

    `cache` replaces both caches. The digest is that of the tree of the files fetched.
    """
    try:
        import huggingface_hub
    except ImportError as error:
        raise AssetError(f"{reference} needs huggingface_hub: pip install 'slipway[train]'.") from error
    record = _record_file(reference, kind, cache)
    known = _read_record(record)
    pinned = _COMMIT.fullmatch(reference.version) is not None
    if known is None or not pinned:
        known = _look_up(huggingface_hub, reference, kind, known)
    folder = _snapshot(huggingface_hub, reference, kind, known, cache)
    digests = {name: _verified(folder / name) for name in known["files"]}
    with locked(record.parent):
        if _read_record(record) != known:
            scratch = record.with_suffix(".tmp")
            scratch.write_text(json.dumps(known, indent=2) + "\n", encoding="utf-8")
            scratch.rename(record)
    return Asset(folder, digest_of_tree(digests), tuple(folder / name for name in sorted(digests)))


def wanted_files(names: Iterable[str], kind: Literal["model", "dataset"]) -> list[str]:
    """The files to fetch of a repository with these files: no code, no pickles, one copy of the weights."""
    names = sorted(names)
    if kind == "dataset":
        return [name for name in names if _fits(name, _TABLE_FILES) and not name.startswith(".")]
    chosen = [n for n in names if _fits(n, _MODEL_FILES) and n.split("/")[0] not in _OTHER_FORMATS]
    standard = [n for n in chosen if re.fullmatch(r"model(-\d+-of-\d+)?\.safetensors", n)]
    if "model.safetensors" in standard:
        standard = ["model.safetensors"]
    if standard:
        # Beside them there may be the same in another precision or layout: model.fp16.safetensors,
        # consolidated.…
        chosen = [n for n in chosen if not n.endswith(".safetensors") or n in standard]
    return chosen


def _look_up(hub: Any, reference: Reference, kind: str, known: dict[str, Any] | None) -> dict[str, Any]:
    """What the revision is now: its commit and the wanted files; `known` if the hub can't be reached."""
    try:
        info = hub.HfApi(endpoint=_endpoint()).repo_info(
            reference.name, revision=reference.version, repo_type=kind, files_metadata=True
        )
    except hub.errors.GatedRepoError as error:
        raise AssetError(
            f"{reference} is gated: accept its terms on the hub, and set HF_TOKEN to a token of that account."
        ) from error
    except hub.errors.RevisionNotFoundError as error:
        raise AssetError(f"{reference}: {reference.name} has no revision {reference.version}.") from error
    except hub.errors.RepositoryNotFoundError as error:
        raise AssetError(
            f"{reference} does not exist as a {kind} on the hub, or is private (then set HF_TOKEN)."
        ) from error
    except hub.errors.HFValidationError as error:
        raise AssetError(f"{reference} is not a name that the hub allows: {error}") from error
    except Exception as error:
        if not _is_connection_error(error):
            raise
        if known is not None:
            say(f"The hub can't be reached; using {reference} as last fetched ({known['commit'][:12]})")
            return known
        raise AssetError(_unreachable(reference, error)) from error
    files = wanted_files([sibling.rfilename for sibling in info.siblings or []], kind)  # type: ignore[arg-type]
    if kind == "model" and not any(name.endswith(".safetensors") for name in files):
        raise AssetError(
            f"{reference} has no safetensors weights. Pickled ones (.bin, .pt) are not fetched, as loading "
            "them runs code; convert them with transformers' save_pretrained and use file:."
        )
    if not files:
        raise AssetError(f"{reference} holds no file in a format of tables ({', '.join(_TABLE_FILES)}).")
    if info.sha != reference.version:
        say(f"{reference} can move; to stay with what it is today, write hub:{reference.name}@{info.sha}")
    sizes = {sibling.rfilename: sibling.size or 0 for sibling in info.siblings or []}
    return {"commit": info.sha, "files": {name: sizes[name] for name in files}}


def _snapshot(hub: Any, reference: Reference, kind: str, known: dict[str, Any], cache: Path | None) -> Path:
    """The folder with all of `known`'s files, fetching those that are not cached."""
    where: dict[str, Any] = {
        "repo_id": reference.name,
        "repo_type": kind,
        "revision": known["commit"],
        "cache_dir": cache / "hub" if cache else None,
        # Patterns are globs; a name that looks like one must match itself only.
        "allow_patterns": [re.sub(r"([*?[])", r"[\1]", name) for name in known["files"]],
    }
    try:
        folder = Path(hub.snapshot_download(**where, local_files_only=True))
        if all((folder / name).is_file() for name in known["files"]):
            return folder
    except (OSError, ValueError):
        pass
    if not console.is_terminal:
        # Its bars are control characters in a log file.
        hub.utils.disable_progress_bars()
        say(f"Downloading {reference}: {sum(known['files'].values()) / 1e6:.0f} MB")
    try:
        return Path(hub.snapshot_download(**where, endpoint=_endpoint()))
    except Exception as error:
        if is_full_disk(error) or not _is_connection_error(error):
            raise
        raise AssetError(_unreachable(reference, error)) from error


def _verified(file: Path) -> str:
    """The sha256 of a file in the hub's cache, whose link leads to a blob that is named by its hash."""
    sha256 = sha256_file(file)
    blob = file.resolve()
    if re.fullmatch(r"[0-9a-f]{64}", blob.name):
        intact = sha256 == blob.name
    elif _COMMIT.fullmatch(blob.name):
        content = blob.read_bytes()
        git = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
        intact = git == blob.name
    else:
        # A cache on a file system without links holds plain files; only a pin can tell then.
        intact = True
    if not intact:
        raise AssetError(
            f"cached file {blob} ({file.name}) was altered: its hash is not the one that the hub gave. "
            f"Delete it and it will be fetched again: rm '{blob}' '{file}'"
        )
    return sha256


def _record_file(reference: Reference, kind: str, cache: Path | None) -> Path:
    name = f"{kind}--{reference.name}@{reference.version}".replace("/", "--")
    return (cache or cache_root()) / "hub-records" / f"{name}.json"


def _read_record(file: Path) -> dict[str, Any] | None:
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        return record if _COMMIT.fullmatch(record["commit"]) and dict(record["files"]) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _fits(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(PurePosixPath(name).name, pattern) for pattern in patterns)


def _is_connection_error(error: Exception) -> bool:
    """Whether it is one; whose type it is depends on the version of the hub's client: requests' or httpx'."""
    return isinstance(error, OSError) or type(error).__module__.partition(".")[0] in ("httpx", "requests")


def _endpoint() -> str | None:
    return os.environ.get("HF_ENDPOINT") or None


def _innermost(error: BaseException) -> str:
    """The first cause in words; what is wrapped around it repeats it, with addresses of objects."""
    while (cause := error.__cause__ or error.__context__ or getattr(error, "reason", None)) and cause is not error:
        if not isinstance(cause, BaseException):
            break
        error = cause
    return " ".join(str(getattr(error, "strerror", None) or error).split())[:200] or type(error).__name__


def _unreachable(reference: Reference, error: Exception) -> str:
    reason = _innermost(error)
    return (
        f"{reference} is not cached, and the hub can't be reached ({reason}). Run where there is a "
        "network and copy its cache here (HF_HOME names it), or use file: with a copy of your own."
    )
