"""A process that the supervisor keeps: started so that it dies with it, ended, and spoken of when it is dead."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from serving.server import launch


class Process:
    """A running program; what it says goes to a log. Made by `spawn`."""

    def __init__(self, name: str, popen: subprocess.Popen[bytes], log: Path) -> None:
        self.name = name
        self.started = time.monotonic()
        self._popen = popen
        self._log = log

    @classmethod
    def spawn(
        cls, name: str, command: list[str], *, log: Path, environment: dict[str, str], stack_bytes: int = 0
    ) -> "Process":
        """Start `command` in the folder of `log`; the main thread must call this (see `serving.server.launch`)."""
        launcher = [sys.executable, "-I", "-S", launch.__file__, str(os.getpid()), str(stack_bytes)]
        with log.open("ab") as stream:
            popen = subprocess.Popen(
                [*launcher, *command],
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                env=environment,
                cwd=log.parent,
            )
        return cls(name, popen, log)

    @property
    def pid(self) -> int:
        """Its number."""
        return self._popen.pid

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self._popen.poll() is None

    def end(self, patience_s: float = 0.0) -> None:
        """Kill it, after `patience_s` in which it may end by itself when told to; doing it twice is harmless."""
        if patience_s:
            self._popen.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._popen.wait(patience_s)
        self._popen.kill()
        self._popen.wait()

    def ending(self) -> str:
        """How it ended."""
        return f"{self.name} {ending(self._popen.wait())}"

    def obituary(self) -> str:
        """How it ended, and its last words."""
        return f"{self.ending()}. {self.last_words()}"

    def last_words(self) -> str:
        """The end of its log, as a sentence and indented lines."""
        tail = self.log_tail()
        return f"The last lines of its log:\n{tail}" if tail else "Its log is empty."

    def log_tail(self, lines: int = 12) -> str:
        """The last lines of its log that say something, without what could be somebody's data."""
        from serving.privacy.masking import mask

        with contextlib.suppress(OSError):
            text = self._log.read_text(encoding="utf-8", errors="replace")
            # Triton prints tables of its options; the lines that matter are between them.
            kept = [line for line in text.splitlines() if line.strip() and line[0] not in "+|"]
            return "\n".join(f"  {mask(line)}" for line in kept[-lines:])
        return ""


def ending(code: int) -> str:
    """What a process did last, by `subprocess`'s return code."""
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
