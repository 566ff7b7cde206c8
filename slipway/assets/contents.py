"""What a file or a folder holds, as one digest.

The digest of a file is the sha256 of its bytes, what `sha256sum` prints. That of a folder, or of the files
that a `*` matched, is the sha256 of one line per file, sorted by name: `<sha256>  <path below the
folder>\\n`. So

    cd folder
    find . -type f -not -path '*/.*' -printf '%P\\0' | LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum

prints it without Slipway. Hidden files and folders don't count: `.git` and `.DS_Store` come and go by
themselves.
"""

import difflib
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from slipway.artifacts import sha256_file
from slipway.errors import AssetError
from slipway.references import Reference


@dataclass(frozen=True)
class Asset:
    """Something fetched and verified.

    `path` is the file or folder; for a `*` the folder that holds the matches. `files` are the file itself,
    the matches, or all files of the folder, sorted by name. `sha256` is what a recipe pins: of the release's
    file for `pypi:`, else of the file or folder (see the module).
    """

    path: Path
    sha256: str
    files: tuple[Path, ...]


def local_asset(reference: Reference) -> Asset:
    """The file, folder or matches at a `file:` reference, hashed now."""
    path = Path(reference.path).expanduser()
    try:
        if path.is_file():
            return Asset(path, sha256_file(path), (path,))
        if path.is_dir():
            files = files_below(path)
            if not files:
                raise AssetError(f"{reference}: the folder is empty.")
            return Asset(path, digest_of_files(path, files), files)
        if is_pattern(path.name) and path.parent.is_dir():
            names = [entry.name for entry in path.parent.iterdir() if entry.is_file()]
            matches = tuple(path.parent / name for name in matching(names, path.name))
            if matches:
                return Asset(path.parent, digest_of_files(path.parent, matches), matches)
    except PermissionError as error:
        raise AssetError(f"{reference} may not be read: {error.filename or path}: permission denied.") from error
    raise AssetError(f"{reference} does not exist{_nearest_on_disk(path)}.")


def files_below(folder: Path) -> tuple[Path, ...]:
    """All files under `folder` that are not hidden, sorted by their path below it."""
    found = (file for file in folder.rglob("*") if file.is_file())
    shown = (file for file in found if not any(part.startswith(".") for part in file.relative_to(folder).parts))
    return tuple(sorted(shown, key=lambda file: file.relative_to(folder).as_posix()))


def digest_of_files(folder: Path, files: Iterable[Path]) -> str:
    """Digest of `files`, named by their paths below `folder`."""
    return digest_of_tree({file.relative_to(folder).as_posix(): sha256_file(file) for file in files})


def digest_of_tree(digests: Mapping[str, str]) -> str:
    """Digest of a tree, from the sha256 of each of its files by name."""
    lines = "".join(f"{digests[name]}  {name}\n" for name in sorted(digests))
    return hashlib.sha256(lines.encode("utf-8", "surrogateescape")).hexdigest()


def is_pattern(name: str) -> bool:
    """Whether the last part of a path is a pattern rather than a name."""
    return any(character in name for character in "*?[")


def matching(names: Iterable[str], pattern: str) -> list[str]:
    """The names that match, sorted; as in a shell, `*` doesn't match hidden ones."""
    hidden_too = pattern.startswith(".")
    return sorted(n for n in names if fnmatchcase(n, pattern) and (hidden_too or not n.startswith(".")))


def nearest(wanted: str, names: Iterable[str], *, count: int = 3) -> str:
    """A clause that offers the names most like `wanted`, or nothing."""
    near = difflib.get_close_matches(wanted, sorted(set(names))[:50_000], n=count, cutoff=0.5)
    return f"; the nearest name{'s are' if len(near) > 1 else ' is'} {', '.join(near)}" if near else ""


def _nearest_on_disk(path: Path) -> str:
    """What is there instead, from the deepest folder of `path` that exists."""
    for folder in path.absolute().parents:
        if folder.is_dir():
            missing = path.absolute().relative_to(folder).parts[0]
            try:
                names = [entry.name for entry in folder.iterdir()]
            except OSError:
                return ""
            return f" (looked in {folder}{nearest(missing, names)})"
    return ""
