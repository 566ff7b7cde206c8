"""Logs: sentences for people, or JSON lines for a collector.

    {"time": "2026-11-24T21:30:00.123456+00:00", "level": "WARNING", "logger": "slipway.triton", "message": "…"}

With `observe.logs: json` everything that the endpoint has to say is one object a line on standard error: its own
remarks, and what Triton, Envoy and the model's processes write into their files, which a thread follows and rewrites
(Triton has no JSON format). The standard library's logging with python-json-logger, rather than structlog: other
packages log with the former anyway, and one formatter takes all of them.

Every message is masked. None should have a text or a key in it, and none of ours has; what Triton repeats of a
malformed request, and the words of an exception, nobody can know.

The access log is a file of its own (Envoy writes it, as JSON): rewriting a line for each request would cost more than
the request.
"""

import contextlib
import logging
import os
import re
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Literal

from serving.privacy.masking import mask
from slipway import progress
from slipway.errors import ServingError

ROOT = "slipway"

_POLL_S = 0.5
_MOST_AT_A_TIME = 1 << 20
_TRITON = re.compile(r"(?P<level>[IWEFV])\d{4} \d\d:\d\d:\d\d\.\d+ \d+ (?P<place>[\w.]+:\d+)\] (?P<message>.*)")
_ENVOY = re.compile(r"\[[\d\-: .]+\]\[\d+\]\[(?P<level>\w+)\]\[(?P<place>[\w.]+)\] (?:\[[^\]]*\] )?(?P<message>.*)")
_LEVELS = {
    "I": logging.INFO, "V": logging.DEBUG, "W": logging.WARNING, "E": logging.ERROR, "F": logging.CRITICAL,
    "trace": logging.DEBUG, "debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING,
    "error": logging.ERROR, "critical": logging.CRITICAL,
}  # fmt: skip
_SOURCES = {"tritonserver": "triton", "envoy": "envoy", "supervisor": "supervisor", "exporter": "exporter"}


class MaskingFilter(logging.Filter):
    """Masks the message of a record, its arguments put in, and drops its traceback's words."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Always true."""
        record.msg, record.args = mask(record.getMessage()), ()
        if record.exc_info:
            kind = record.exc_info[0]
            record.msg += f" ({kind.__name__})" if kind is not None else ""
            record.exc_info = record.exc_text = None
        return True


def log_json(stream: IO[str] | None = None, **fields: str) -> Callable[[], None]:
    """Write everything that is said and logged as JSON lines to `stream` (standard error), with `fields` in each.

    Returns what ends it. Raises `ServingError` if python-json-logger is not installed.
    """
    try:
        from pythonjsonlogger.json import JsonFormatter
    except ModuleNotFoundError as error:
        raise ServingError(
            "serve.observe.logs is json, which needs python-json-logger, which is not installed; "
            "try: pip install 'slipway[serve]'."
        ) from error
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(
        JsonFormatter(
            ["levelname", "name", "message"],
            rename_fields={"levelname": "level", "name": "logger"},
            timestamp="time",
            static_fields=fields,
            json_ensure_ascii=False,
        )
    )
    handler.addFilter(MaskingFilter())
    root = logging.getLogger()
    before = root.level
    root.addHandler(handler)
    # Other packages may speak up when something is wrong; what is said here is information.
    root.setLevel(logging.WARNING)
    said = logging.getLogger(ROOT)
    said.setLevel(logging.INFO)
    progress.speak_through(said.log)

    def end() -> None:
        progress.speak_through(None)
        root.removeHandler(handler)
        root.setLevel(before)

    return end


class Relay:
    """Follows the log files of an endpoint's processes, and logs each line that is added, until it is stopped.

    `directory` is the endpoint's; its files `tritonserver….log`, `envoy….log`, `supervisor.log`, `exporter.log` count.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._read: dict[Path, int] = {}
        self._headless: set[Path] = set()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="logs")
        self._thread.start()

    def stop(self) -> None:
        """Log what is left."""
        self._stopped.set()
        self._thread.join(2.0)

    def _run(self) -> None:
        while not self._stopped.wait(_POLL_S):
            self._relay()
        self._relay()

    def _relay(self) -> None:
        for path in sorted(self._directory.glob("*.log")):
            source = next((name for start, name in _SOURCES.items() if path.name.startswith(start)), None)
            if source is not None:
                for line in self._new_lines(path):
                    _log_line(source, line)

    def _new_lines(self, path: Path) -> list[str]:
        """Whole lines that were added, as half a number would not be masked; of a flood, a mebibyte at a time."""
        place = self._read.get(path, 0)
        try:
            with path.open("rb") as stream:
                if stream.seek(0, os.SEEK_END) < place:
                    place = 0
                stream.seek(place)
                added = stream.read(_MOST_AT_A_TIME)
        except OSError:
            return []
        end = added.rfind(b"\n") + 1
        if not end and len(added) == _MOST_AT_A_TIME:
            self._headless.add(path)
            end = len(added)
        self._read[path] = place + end
        lines = added[:end].decode("utf-8", errors="replace").split("\n")[:-1]
        if lines and path in self._headless:
            self._headless.remove(path)
            lines[0] = f"a line of more than {_MOST_AT_A_TIME:,} bytes was left out"
        return lines


@contextlib.contextmanager
def relayed(directory: Path, logs: Literal["text", "json"]) -> Iterator[None]:
    """While in the block, log what the processes of the endpoint in `directory` write, if logs are JSON."""
    if logs != "json":
        yield
        return
    relay = Relay(directory)
    try:
        yield
    finally:
        relay.stop()


def _log_line(source: str, line: str) -> None:
    """Log what a process wrote, at the level that it gave; a line without one belongs to those before it."""
    # Triton prints its options as tables.
    if not line.strip() or line[0] in "+|":
        return
    found = (_TRITON if source == "triton" else _ENVOY).match(line)
    name = f"{ROOT}.{source}"
    if found:
        logging.getLogger(name).log(
            _LEVELS.get(found["level"], logging.INFO), "%s: %s", found["place"], found["message"]
        )
    else:
        logging.getLogger(name).info("%s", line)
