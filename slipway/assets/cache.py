"""Where fetched things are kept, and who may write there.

    <cache>/pypi/<name>-<version>/<sha256>/
        <release file>              as the index serves it; `.part` while it is arriving
        extracted/<key>/            what one path inside it named: record.json, files/
        .lock

Everything about a release's file is in the folder named by its digest, so a folder can be deleted, or copied
to a machine without a network, without breaking another.
"""

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from slipway.errors import AssetError
from slipway.progress import say

_NOT_WRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR, errno.EEXIST)


def cache_root() -> Path:
    """`$SLIPWAY_CACHE`, else `$XDG_CACHE_HOME/slipway`, else `~/.cache/slipway`."""
    if chosen := os.environ.get("SLIPWAY_CACHE"):
        return Path(chosen).expanduser().absolute()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "slipway"


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Make `folder` and hold it against other processes; the kernel lets go when this one dies.

    `flock` rather than a file that exists: that one stays after a `kill -9`. It holds between threads too, as
    each call opens the file anew.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        stream = (folder / ".lock").open("w")
    except OSError as error:
        if error.errno in _NOT_WRITABLE:
            raise AssetError(
                f"the cache can't be written: {error.filename or folder}: {error.strerror}. "
                "Set SLIPWAY_CACHE to a folder that can."
            ) from error
        raise
    with stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"Waiting for another process that is fetching into {folder}")
            fcntl.flock(stream, fcntl.LOCK_EX)
        yield
