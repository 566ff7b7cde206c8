"""The files of the capture: whole lines, bounded together, one writer a file.

    DIRECTORY/requests-20261124T213000.123456-4711-0.jsonl

Several model processes write into one directory at a time, each its own file, which it holds a lock on. A file that
would grow too large is closed and another begun; when all of them together would, the oldest that nobody holds makes
room. So the bound holds for the directory, over restarts and however many processes there are: one that finds no room
drops what it has.

A line is written by one call, and what a full disk or a kill left of a line is cut off, by the writer or by the next
process that opens the directory. So each file can be read at any time, but for a last line that is being written.
"""

import contextlib
import fcntl
import itertools
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

_PREFIX, _SUFFIX = "requests-", ".jsonl"
_BLOCK = 1 << 16
_NUMBERS = itertools.count()


class CaptureFiles:
    """Appends lines to files of `directory` within `max_bytes`, of which one file has at most `max_file_bytes`."""

    def __init__(self, directory: Path, *, max_bytes: int, max_file_bytes: int) -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._directory = directory
        self._max_bytes = max_bytes
        self._max_file_bytes = max_file_bytes
        self._file = -1
        self._size = 0
        for path in self._idle():
            _cut_torn_line(path)

    def append(self, lines: list[bytes]) -> int:
        """Write as many of `lines` (each ends with a line feed) as there is room for; how many were written."""
        with _exclusively(self._directory):
            return self._append(lines)

    def _append(self, lines: list[bytes]) -> int:
        written = 0
        for line in lines:
            if len(line) > self._max_file_bytes or not self._make_room(len(line)):
                continue
            try:
                done = os.write(self._file, line)
            except OSError:
                done = 0
            if done != len(line):
                with contextlib.suppress(OSError):
                    os.ftruncate(self._file, self._size)
                    os.lseek(self._file, self._size, os.SEEK_SET)
                # The disk is full; the next lines would fare no better, and the files of others must not suffer.
                break
            self._size += done
            written += 1
        return written

    def close(self) -> None:
        """Let go of the open file; an empty one is removed."""
        if self._file >= 0:
            if self._size == 0:
                self._path.unlink(missing_ok=True)
            os.close(self._file)
        self._file = -1

    def _make_room(self, size: int) -> bool:
        if self._file >= 0 and self._size + size > self._max_file_bytes:
            self.close()
        if self._file < 0 and not self._begin():
            return False
        total = sum(_size(path) for path in self._all())
        if total + size <= self._max_bytes:
            return True
        for path in self._idle():
            total -= _size(path)
            path.unlink(missing_ok=True)
            if total + size <= self._max_bytes:
                return True
        return False

    def _begin(self) -> bool:
        now = datetime.now(UTC)
        self._path = self._directory / f"{_PREFIX}{now:%Y%m%dT%H%M%S.%f}-{os.getpid()}-{next(_NUMBERS)}{_SUFFIX}"
        try:
            self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self.close()
            return False
        self._size = 0
        return True

    def _all(self) -> list[Path]:
        """Files of the capture, the oldest first."""
        return sorted(self._directory.glob(f"{_PREFIX}*{_SUFFIX}"))

    def _idle(self) -> Iterator[Path]:
        """Those that no process is writing."""
        for path in self._all():
            with contextlib.suppress(OSError), path.open("rb") as stream:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                yield path


@contextlib.contextmanager
def _exclusively(directory: Path) -> Iterator[None]:
    """Keep the other writers from taking the same room."""
    lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _size(path: Path) -> int:
    with contextlib.suppress(OSError):
        return path.stat().st_size
    return 0


def _cut_torn_line(path: Path) -> None:
    """Remove what follows the last line feed."""
    with contextlib.suppress(OSError), path.open("r+b") as stream:
        end = kept = stream.seek(0, os.SEEK_END)
        while kept > 0:
            begin = max(0, kept - _BLOCK)
            stream.seek(begin)
            found = stream.read(kept - begin).rfind(b"\n")
            if found >= 0:
                kept = begin + found + 1
                break
            kept = begin
        if kept != end:
            stream.truncate(kept)
