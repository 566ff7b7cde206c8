"""An artifact from an object store, an HTTP server or a folder, checked file by file: `slipway fetch`.

What is fetched is named by the digest of its manifest, which lists every file with its sha256. So nothing in the store
has to be trusted, and neither an archive nor a signature is needed: the manifest is fetched first and must have the
digest, then each file must have the one that the manifest says. obstore (Rust's object_store) speaks to S3 and what
looks like it, Google's and Azure's stores, and plain HTTP, with retries, in one wheel of 6 MB; the vendors' own
packages or fsspec's would bring three of them and their dependencies.

Credentials come from the environment as the stores' own tools have them (`AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT`, …),
or from the machine's identity.
"""

import hashlib
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import ValidationError

from slipway.artifacts import MANIFEST, Artifact, Manifest, plain_digest, read_artifact, require_destination
from slipway.errors import ArtifactError, SlipwayError, first_line
from slipway.places import replacing

_LARGEST_MANIFEST = 16 << 20
_CHUNK = 4 << 20
_TRIES = 5


def fetch(url: str, out: Path, *, digest: str, told: Callable[[str, int], None] | None = None) -> Artifact:
    """Fetch the artifact whose folder is `url` to `out`; one that is there already and has the digest stays.

    `digest` is the hex sha256 of the manifest, with or without `sha256:` before it. `told` is called with each file and
    its bytes when it is there. Raises `ArtifactError` if what is there is not what the digest says, or if `out` is
    something else than an older one of its kind, `SlipwayError` if it can't be had. Nothing half-fetched stays.
    """
    wanted = plain_digest(digest)
    found = _already(out, wanted)
    if found is not None:
        return found
    store = _open(url)
    raw = _get(store, url, MANIFEST, limit=_LARGEST_MANIFEST)
    if hashlib.sha256(raw).hexdigest() != wanted:
        raise ArtifactError(
            f"{_place(url)} holds another artifact: its manifest's digest is sha256:{hashlib.sha256(raw).hexdigest()}, "
            f"not sha256:{wanted}."
        )
    try:
        manifest = Manifest.model_validate_json(raw)
    except ValidationError as error:
        raise ArtifactError(f"{_place(url)} has a {MANIFEST} that is none of an artifact: {error}") from error
    require_destination(out, manifest.kind)
    with replacing(out) as scratch:
        for name, record in manifest.files.items():
            _require_inside(name, url)
            target = scratch / name
            target.parent.mkdir(parents=True, exist_ok=True)
            _download(store, url, name, target, record.bytes, record.sha256)
            if told is not None:
                told(name, record.bytes)
        (scratch / MANIFEST).write_bytes(raw)
    return read_artifact(out, verify=False)


def _already(out: Path, wanted: str) -> Artifact | None:
    try:
        found = read_artifact(out)
    except ArtifactError:
        return None
    return found if found.digest == wanted else None


def _open(url: str) -> Any:
    try:
        from obstore.store import from_url
    except ModuleNotFoundError as error:
        raise SlipwayError(
            "fetching needs obstore, which is not installed; try: pip install 'slipway[serve]'."
        ) from error
    try:
        # Plain HTTP is for stores inside a cluster; what arrives is checked either way.
        return from_url(
            url,
            client_options={"allow_http": True, "timeout": "10m"},
            retry_config={"max_retries": _TRIES, "retry_timeout": timedelta(minutes=2)},
        )
    except (ValueError, TypeError, _failure()) as error:
        raise SlipwayError(f"{_place(url)} is no place that can be read: {first_line(error)}.") from error


def _get(store: Any, url: str, name: str, *, limit: int) -> bytes:
    answer = _request(store, url, name)
    if answer.meta["size"] > limit:
        raise ArtifactError(f"{name} in {_place(url)} has {answer.meta['size']:,} bytes; that is no manifest.")
    try:
        return bytes(answer.bytes())
    except _failure() as error:
        raise _missed(url, name, error) from error


def _request(store: Any, url: str, name: str) -> Any:
    import obstore

    try:
        return obstore.get(store, name)
    except (_failure(), OSError) as error:
        raise _missed(url, name, error) from error


def _missed(url: str, name: str, error: Exception) -> SlipwayError:
    return SlipwayError(f"{name} can't be had from {_place(url)}: {first_line(error)}.")


def _download(store: Any, url: str, name: str, target: Path, size: int, sha256: str) -> None:
    answer, digest, received = _request(store, url, name), hashlib.sha256(), 0
    try:
        with target.open("wb") as stream:
            for chunk in answer.stream(min_chunk_size=_CHUNK):
                received += len(chunk)
                if received > size:
                    break
                digest.update(chunk)
                stream.write(chunk)
    except _failure() as error:
        raise _missed(url, name, error) from error
    if received != size or digest.hexdigest() != sha256:
        raise ArtifactError(f"{name} in {_place(url)} is not what its manifest says; nothing was kept.")


def _require_inside(name: str, url: str) -> None:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts or name == MANIFEST:
        raise ArtifactError(f"{_place(url)} lists a file {name!r}, which would lie outside of the artifact.")


def _failure() -> type[Exception]:
    from obstore.exceptions import BaseError

    failure: type[Exception] = BaseError
    return failure


def _place(url: str) -> str:
    """The URL without a query, in which credentials are handed over."""
    return url.partition("?")[0]
