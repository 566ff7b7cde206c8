"""A claim on the place of an artifact, so that two commands started at once don't both make it, nor share its scratch.

The second one waits, says so, and finds the artifact made. The claim is a lock that the kernel drops when its holder
dies, however it dies; the file that carries it goes with the holder, or with the next one after a `kill -9`. A file
beside the artifact rather than one in /tmp: that is where commands of other users and containers see it, too.
"""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from slipway.places import folder_for
from slipway.progress import say


@contextlib.contextmanager
def claimed(path: Path) -> Iterator[None]:
    """Hold the place `path` against other processes; folders that were made for it go again if nothing came of it."""
    path = path.absolute()
    file = path.with_name(f".{path.name}.lock")
    with folder_for(path):
        lock = _lock(file, path)
        try:
            yield
        finally:
            file.unlink(missing_ok=True)
            os.close(lock)


def _lock(file: Path, claimed_for: Path) -> int:
    while True:
        descriptor = os.open(file, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o666)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                say(f"Waiting for another process that is making {claimed_for}")
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            # Its last holder removes the file; a lock on what is gone keeps nobody out.
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), file.stat()):
                    return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
