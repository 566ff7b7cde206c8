"""Faults on purpose, while the load runs: what a bad night does to an endpoint, at a time of one's choosing.

    chaos:
      - {at_s: 10, fault: kill-stub, recover_within_s: 5}
      - {at_s: 20, fault: pause-triton, for_s: 2}

A fault is anything with a `name`, an `inject` that does it and says what it did, and a `recover` that ends it (and may
be called when nothing was injected). Those of a recipe are one line each in `FAULTS`; a test can give `Chaos` its own.

Whom it may hit: processes of the endpoint at the address, on this machine, known by their mark (`loadtests.server`).
An address elsewhere, or a server that isn't Slipway's, is refused before any load is sent. `fill-disk` is bounded too:
it takes what is left of a small file system and refuses a large one, which would be everybody's.

Toxiproxy, Pumba and Chaos Mesh do this for networks, containers and clusters; none of them knows which process is the
model's stub, and all need more rights than the load test has.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import psutil

from loadtests.server import Role, Server
from slipway.errors import LoadTestError
from slipway.recipe import ChaosEvent
from slipway.recipe.chaos import FaultName

_LARGEST_DISK_BYTES = 4 << 30
_CHUNK = bytes(1 << 20)


class Fault(Protocol):
    """Something that goes wrong."""

    @property
    def name(self) -> str:
        """What the report calls it."""

    def inject(self) -> str:
        """Make it happen; says what exactly was done."""

    def recover(self) -> None:
        """End it; harmless if it has ended or never began."""


@dataclass(frozen=True)
class Kill:
    """SIGKILL to one process that does `role`; what watches the endpoint has to bring it back."""

    name: str
    server: Server
    role: Role

    def inject(self) -> str:
        """Kill the one with the lowest number."""
        victim = _one_of(self.server, self.role)
        _signal(victim, signal.SIGKILL)
        return f"SIGKILL to {self.role} {victim.pid}"

    def recover(self) -> None:
        """Nothing: the dead stay dead."""


class Pause:
    """SIGSTOP to every process that does `role`, SIGCONT afterwards: alive, and not answering."""

    def __init__(self, name: str, server: Server, role: Role) -> None:
        self.name = name
        self._server = server
        self._role: Role = role
        self._paused: list[psutil.Process] = []

    def inject(self) -> str:
        """Stop them all."""
        self._paused = self._server.in_role(self._role)
        if not self._paused:
            raise _nobody(self._role)
        for process in self._paused:
            _signal(process, signal.SIGSTOP)
        return f"SIGSTOP to {self._role} {', '.join(str(process.pid) for process in self._paused)}"

    def recover(self) -> None:
        """Let them go on."""
        for process in self._paused:
            _signal(process, signal.SIGCONT)
        self._paused = []


class FillDisk:
    """No space left in `directory`."""

    def __init__(self, directory: Path) -> None:
        self.name = "fill-disk"
        self._directory = directory
        self._file = directory / f".slipway-fills-the-disk-{os.getpid()}"

    def inject(self) -> str:
        """Write zeros until there is no room for one more byte; refuses a file system with more than 4 GiB left."""
        free = shutil.disk_usage(self._directory).free
        if free > _LARGEST_DISK_BYTES:
            raise LoadTestError(
                f"chaos: fill-disk would take {free >> 30} GiB that others need; {self._directory} must be on a small "
                "file system of its own, for example: mount -t tmpfs -o size=256m tmpfs DIRECTORY."
            )
        written = 0
        with self._file.open("wb", buffering=0) as stream:
            for chunk in (_CHUNK, _CHUNK[:4096], b"\0"):
                with contextlib.suppress(OSError):
                    while count := stream.write(chunk):
                        written += count
        return f"{written:,} bytes written to {self._directory}, none left"

    def recover(self) -> None:
        """Give the room back."""
        self._file.unlink(missing_ok=True)


class HogCpu:
    """`processes` loops that compete for the cores; they end with this process, however it ends."""

    def __init__(self, processes: int) -> None:
        self.name = "hog-cpu"
        self._count = processes
        self._hogs: list[subprocess.Popen[bytes]] = []

    def inject(self) -> str:
        """Start them."""
        # A loop that looks who its parent is ends when that changes.
        loop = f"import os\nwhile os.getppid() == {os.getpid()}:\n  for _ in range(10**6): pass"
        self._hogs = [subprocess.Popen([sys.executable, "-S", "-c", loop]) for _ in range(self._count)]
        return f"{self._count} busy processes"

    def recover(self) -> None:
        """End them."""
        for hog in self._hogs:
            hog.kill()
            hog.wait()
        self._hogs = []


FAULTS: dict[FaultName, Callable[[ChaosEvent, Server], Fault]] = {
    "kill-stub": lambda event, server: Kill(event.fault, server, "stub"),
    "kill-triton": lambda event, server: Kill(event.fault, server, "triton"),
    "kill-envoy": lambda event, server: Kill(event.fault, server, "envoy"),
    "kill-supervisor": lambda event, server: Kill(event.fault, server, "supervisor"),
    "pause-stub": lambda event, server: Pause(event.fault, server, "stub"),
    "pause-triton": lambda event, server: Pause(event.fault, server, "triton"),
    "pause-envoy": lambda event, server: Pause(event.fault, server, "envoy"),
    "fill-disk": lambda event, _: FillDisk(Path(event.directory or "")),
    "hog-cpu": lambda event, _: HogCpu(event.processes),
}


@dataclass(frozen=True)
class Injected:
    """A fault that was made; times on the monotonic clock."""

    fault: str
    detail: str
    began_s: float
    ended_s: float
    recover_within_s: float | None


class Chaos:
    """Carries out a schedule in a thread of its own, from when it is told that the load has begun."""

    def __init__(self, schedule: Sequence[tuple[ChaosEvent, Fault]]) -> None:
        self._schedule = sorted(schedule, key=lambda entry: entry[0].at_s)
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._failure: LoadTestError | None = None
        self.injected: list[Injected] = []

    @classmethod
    def on(cls, server: Server | None, events: Sequence[ChaosEvent], duration_s: float, *, local: bool) -> "Chaos":
        """For the endpoint `server`. Raises `LoadTestError` if it may not or can't be given these faults."""
        if not events:
            return cls([])
        if not local:
            raise LoadTestError("chaos: faults are made on this machine only, and the address is another's.")
        if server is None or server.endpoint_id is None:
            raise LoadTestError(
                "chaos: what listens at the address is no endpoint of Slipway that you started; only such an "
                "endpoint's processes are given faults. Start one with: slipway serve BUNDLE"
            )
        late = next((event for event in events if event.at_s >= duration_s), None)
        if late is not None:
            raise LoadTestError(
                f"chaos: {late.fault} at {late.at_s:g} s comes after the load, which lasts {duration_s:g} s."
            )
        missing = next((event for event in events if event.directory and not Path(event.directory).is_dir()), None)
        if missing is not None:
            raise LoadTestError(f"chaos: directory {missing.directory} does not exist.")
        return cls([(event, FAULTS[event.fault](event, server)) for event in events])

    def begin(self, zero_s: float) -> None:
        """The measured window starts at `zero_s` of the monotonic clock. Only the first call counts."""
        if self._schedule and self._thread is None:
            self._thread = threading.Thread(target=self._main, args=(zero_s,), daemon=True, name="chaos")
            self._thread.start()

    def end(self) -> None:
        """The load is over: end every fault. Raises `LoadTestError` if one could not be made."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        if self._failure is not None:
            raise self._failure

    def _main(self, zero_s: float) -> None:
        for event, fault in self._schedule:
            if self._stop.wait(max(zero_s + event.at_s - time.monotonic(), 0)):
                return
            began_s = time.monotonic()
            try:
                detail = fault.inject()
                if not event.fault.startswith("kill"):
                    self._stop.wait(event.for_s)
            except (LoadTestError, OSError, psutil.Error) as error:
                self._failure = LoadTestError(f"chaos: {event.fault} could not be made: {error}")
                return
            finally:
                fault.recover()
            ended_s = began_s if event.fault.startswith("kill") else time.monotonic()
            self.injected.append(Injected(fault.name, detail, began_s, ended_s, event.recover_within_s))


def _one_of(server: Server, role: Role) -> psutil.Process:
    found = server.in_role(role)
    if not found:
        raise _nobody(role)
    return min(found, key=lambda process: process.pid)


def _nobody(role: Role) -> LoadTestError:
    return LoadTestError(f"the endpoint has no {role} process to give it to.")


def _signal(process: psutil.Process, number: signal.Signals) -> None:
    """Not `os.kill`: psutil makes sure that the number still belongs to the process that was found."""
    with contextlib.suppress(psutil.NoSuchProcess):
        process.send_signal(number)
