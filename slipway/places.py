"""Places on disk: may one be written to, and folders and files that are there whole or not at all.

What is made is written to a temporary sibling and renamed, so a crash, a full disk or Ctrl-C leaves either the old one
or none, and the folders that were made around it go again if nothing came of it. A sibling has the number of its
process in its name: what a killed one left, the next that writes to the same place removes.
"""

import contextlib
import errno
import glob
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from slipway.errors import ArtifactError

_READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)
_SIGNS_OF_A_FULL_DISK = ("No space left on device", "PytorchStreamWriter failed writing", ". unexpected pos ")


def require_file(path: Path) -> None:
    """Raise `ArtifactError` if no file could be written at `path`, or in place of the one that is there."""
    path = path.absolute()
    if path.is_dir():
        raise ArtifactError(f"{path} can't be written: it is a folder. Name a file.")
    if not path.exists():
        require_folder(path)
    elif not os.access(path, os.W_OK):
        raise ArtifactError(f"{path} can't be written: it is read-only. Name another file.")


def require_folder(path: Path) -> None:
    """Raise `ArtifactError` unless the folder around `path` is one that can be written, or could be made."""
    folder = next(parent for parent in path.parents if parent.exists())
    if not folder.is_dir():
        raise ArtifactError(f"{path} can't be written: {folder} is not a folder. Choose another.")
    try:  # tried, not asked: permissions allow root to write into /proc, which takes no files
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        reason = "is read-only" if error.errno in _READ_ONLY else f"takes no files ({error.strerror})"
        raise ArtifactError(f"{path} can't be written: {folder} {reason}. Choose another folder.") from error


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary sibling of `path` that takes its place at the end of the block, with all that was written there.

    If the body raises, the sibling is removed and `path` stays as it was. Whether what is there may go is for the
    caller to ask before (`slipway.artifacts.require_destination`).
    """
    path = path.absolute()
    with folder_for(path):
        _remove_abandoned(path)
        scratch = Path(tempfile.mkdtemp(prefix=f".{path.name}.tmp-{os.getpid()}-", dir=path.parent))
        try:
            # mkdtemp makes 0700 for secrets; an artifact is read by others (a serving user, a container).
            scratch.chmod(0o755)
            yield scratch
            _sync_tree(scratch)
            _swap_in(scratch, path)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


@contextlib.contextmanager
def replacing_file(path: Path) -> Iterator[Path]:
    """The same for a file: what was written to the sibling takes its place if the block comes to its end."""
    path = path.absolute()
    scratch = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    with folder_for(path):
        _remove_abandoned(path)
        try:
            yield scratch
            with scratch.open("rb") as stream:
                os.fsync(stream.fileno())
            scratch.replace(path)
        finally:
            scratch.unlink(missing_ok=True)


@contextlib.contextmanager
def folder_for(path: Path) -> Iterator[None]:
    """The folder around `path`; of those that were made for it, the ones in which nothing is go at the end."""
    made = [folder for folder in path.absolute().parents if not folder.exists()]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    finally:
        with contextlib.suppress(OSError):
            for folder in made:
                folder.rmdir()


def is_full_disk(error: BaseException) -> bool:
    """Whether `error` or what caused it is a full disk or an exceeded quota.

    The Rust and C++ writers underneath (safetensors, ONNX) raise types of their own that carry only the text. That of
    `torch.save` doesn't say why it could not write; but for a disk that breaks, there is no other reason.
    """
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if any(sign in str(seen) for sign in _SIGNS_OF_A_FULL_DISK):
            return True
        seen = seen.__cause__ or seen.__context__
    return False


def _sync_tree(root: Path) -> None:
    for file in root.rglob("*"):
        if file.is_file():
            with file.open("rb") as stream:
                os.fsync(stream.fileno())


def _swap_in(scratch: Path, path: Path) -> None:
    """Rename `scratch` to `path`; an old artifact steps aside first, as rename can't replace a full directory."""
    if not path.exists():
        scratch.rename(path)
        return
    aside = path.with_name(f".{path.name}.old-{os.getpid()}")
    path.rename(aside)
    try:
        scratch.rename(path)
    except BaseException:
        aside.rename(path)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def _remove_abandoned(path: Path) -> None:
    """Clear what a killed writer of the same artifact left, and put back an old one that it had set aside."""
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.*-*"):
        stem, _, rest = leftover.name.removeprefix(f".{path.name}.").partition("-")
        pid = rest.partition("-")[0]
        if stem not in ("tmp", "old") or not pid.isdigit() or Path(f"/proc/{pid}").exists():
            continue
        if stem == "old" and not path.exists():
            leftover.rename(path)
        elif leftover.is_file():
            leftover.unlink(missing_ok=True)
        else:
            shutil.rmtree(leftover, ignore_errors=True)
