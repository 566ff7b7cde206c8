"""The runtime directory of an endpoint, and the sweeping of everything that an endpoint can leave behind.

Whatever an endpoint makes carries its id: processes in their environment (`slipway.processes`, inherited by
Triton's stubs, which nobody here starts), shared memory in its name, files under the runtime directory. So
one sweep by id removes all of it, whoever is still alive to do it.

Owners hold a shared lock on the directory. The kernel drops it when they die, however they die, so the next
start recognizes what is abandoned without trusting a process number, which may be somebody else's by then.
One that was killed holds its lock until the kernel has taken its memory back; so a start looks a second time when it is
ready.
"""

import contextlib
import fcntl
import math
import os
import secrets
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from slipway.errors import ServingError
from slipway.processes import marked_processes

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108
ENVIRONMENTS = Path("/tmp")  # noqa: S108 - the backend's own choice, whatever TMPDIR says
_TRITON = "tritonserver"
_CLOCK_S = 1.0
"""The start of a process is known to a hundredth of a second, by another clock than that of files."""
_LOCK = "lock"
_LONGEST_SOCKET_PATH = 107
"""Bytes of a Unix socket's path that the kernel takes."""
_SWEEP_SECONDS = 10.0


@dataclass(frozen=True)
class Runtime:
    """An endpoint's directory, readable by its user only, kept alive by the lock that this object holds."""

    path: Path
    lock: int
    """Descriptor of the shared lock; closed by `release` or by the death of the process."""

    @classmethod
    def create(cls) -> "Runtime":
        """Make a new one, after clearing away those whose owners are gone."""
        sweep_abandoned()
        base = endpoints_directory()
        with _exclusively(base):
            path = base / secrets.token_hex(6)
            path.mkdir(mode=0o700)
            return cls(path, _hold(path))

    @classmethod
    def join(cls, path: Path) -> "Runtime":
        """Become a further owner of the one at `path`."""
        return cls(path, _hold(path))

    @property
    def id(self) -> str:
        """What processes and shared memory of this endpoint are marked with."""
        return self.path.name

    @property
    def shared_memory_prefix(self) -> str:
        """How the names of its shared-memory files begin."""
        return _shared_memory_prefix(self.id)

    @property
    def admin_socket(self) -> Path:
        """Envoy's administration, for this user only."""
        return self.path / "envoy.sock"

    @property
    def health_socket(self) -> Path:
        """Where the front door answers health paths to this machine."""
        return self.path / "health.sock"

    @property
    def access_log(self) -> Path:
        """One JSON line for each request."""
        return self.path / "access.log"

    def log(self, process: str) -> Path:
        """Where `process` writes what it has to say."""
        return self.path / f"{process}.log"

    def sweep(self) -> None:
        """End and remove whatever is left of the endpoint; doing it twice is harmless."""
        _sweep(self.path)

    def release(self) -> None:
        """Stop being an owner."""
        with contextlib.suppress(OSError):
            os.close(self.lock)


def endpoints_directory() -> Path:
    """Where all endpoints of this user have their directories; refused if somebody else could have planted it."""
    name = f"slipway-{os.getuid()}"
    longest = len(os.fsencode(f"{tempfile.gettempdir()}/{name}/{'0' * 12}/control.sock"))
    root = Path(tempfile.gettempdir() if longest <= _LONGEST_SOCKET_PATH else "/tmp")  # noqa: S108
    base = root / name
    with contextlib.suppress(FileExistsError):
        base.mkdir(mode=0o700)
    found = base.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise ServingError(f"{base} must be a directory that only you can enter; remove it or set TMPDIR.")
    return base


@contextlib.contextmanager
def _exclusively(base: Path) -> Iterator[None]:
    """Keep others from sweeping a directory between its making and its locking."""
    with (base / _LOCK).open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _hold(path: Path) -> int:
    lock = os.open(path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(lock, fcntl.LOCK_SH)
    return lock


def sweep_abandoned() -> None:
    """End and remove what endpoints of this user have left whose owners are gone."""
    base = endpoints_directory()
    with _exclusively(base):
        for path in base.iterdir():
            if path.is_dir() and _is_abandoned(path):
                _sweep(path)


def _is_abandoned(path: Path) -> bool:
    try:
        with (path / _LOCK).open("r+") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except FileNotFoundError:
        return True
    return True


def _sweep(path: Path) -> None:
    _end_processes(path.name)
    for region in SHARED_MEMORY.glob(_shared_memory_prefix(path.name) + "*"):
        region.unlink(missing_ok=True)
    shutil.rmtree(path, ignore_errors=True)
    _remove_environments()


def _remove_environments() -> None:
    """Triton's Python backend makes a directory at each start, for packed environments, and leaves it there, empty.

    Nothing tells whose it is, but one that is older than every server that lives is a dead one's.
    """
    processes = [each.info for each in psutil.process_iter(["name", "create_time", "status"])]
    servers = [each for each in processes if each["name"] == _TRITON and each["status"] != psutil.STATUS_ZOMBIE]
    oldest = min((each["create_time"] for each in servers), default=math.inf)
    for directory in ENVIRONMENTS.glob("python_env_??????"):
        with contextlib.suppress(OSError):  # somebody else's, or not empty
            about = directory.lstat()
            if about.st_uid == os.getuid() and about.st_mtime < oldest - _CLOCK_S:
                directory.rmdir()


def _end_processes(endpoint_id: str) -> None:
    """Kill until none is left: one that is killed may have been starting another."""
    deadline = time.monotonic() + _SWEEP_SECONDS
    while (found := marked_processes(endpoint_id)) and time.monotonic() < deadline:
        for process in found:
            with contextlib.suppress(psutil.Error):
                process.kill()
        # Not `wait_procs`: a killed stub stays a zombie until init reaps it, and holds nothing.
        time.sleep(0.02)


def _shared_memory_prefix(endpoint_id: str) -> str:
    return f"slipway-{endpoint_id}-"
