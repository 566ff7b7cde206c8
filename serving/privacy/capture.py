"""A sample of the requests for retraining: masked, bounded, and never in the way of an answer.

The model's thread only decides whether a request is sampled and puts it on a bounded queue; a thread of the background
masks and writes. Masking holds the interpreter while a pattern runs, so the thread rests nine times as long as it
worked: capture takes at most a tenth of one core from the model, whatever is asked of it, and what it can't keep up
with is dropped and counted.

A row is one JSON object a line, which Slipway's `data:` section reads: `text` (masked), `label` and `score` (the
model's answer; correct the label in place), `truncated`, `model`, `version`, `time`.

Nothing is written that was not masked. A text that is too long to be masked in good time, or whose masking fails, is
dropped; it is not cut before masking, as half a number is not recognized.
"""

import json
import queue
import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from serving.model.observation import Answered, Executed
from serving.privacy.files import CaptureFiles
from serving.privacy.masking import Masker

Outcome = Literal["written", "queue", "length", "masking", "disk"]
"""What became of a sampled row: written, or why it was dropped."""

LONGEST_TEXT = 10_000
"""Characters."""

_QUEUED = 256
_BATCH = 32
_REST = 9.0
_POLL_S = 0.2
_CLOSE_S = 3.0


@dataclass(frozen=True)
class _Row:
    text: str
    label: str
    score: float
    truncated: bool
    time_s: float


class Capture:
    """An `Observer` that writes a share `rate` of the requests to `files`, masked by `masker`.

    `count` is told what became of each sampled row; it is called from two threads.
    """

    def __init__(
        self,
        files: CaptureFiles,
        masker: Masker,
        *,
        rate: float,
        model: str,
        version: str,
        count: Callable[[Outcome, int], None],
        sample: Callable[[], float] = random.random,
    ) -> None:
        self._files = files
        self._masker = masker
        self._rate = rate
        self._about = {"model": model, "version": version}
        self._count = count
        self._sample = sample
        self._queue: queue.Queue[_Row] = queue.Queue(_QUEUED)
        self._closing = threading.Event()
        self._writer = threading.Thread(target=self._write, daemon=True, name="capture")
        self._writer.start()

    def executed(self, batch: Executed) -> None:
        """Choose among what came through the front door and was answered; a request's rows stay together.

        The others are health checks: two a second, always of the same text.
        """
        for answered in batch.answered:
            if answered.request.arrived_s and self._sample() < self._rate:
                for row in _rows(answered, batch.ended_s):
                    try:
                        self._queue.put_nowait(row)
                    except queue.Full:
                        self._count("queue", 1)

    def close(self) -> None:
        """Write what is queued, as far as a few seconds allow."""
        self._closing.set()
        self._writer.join(_CLOSE_S)

    def _write(self) -> None:
        while True:
            rows = self._take()
            if rows:
                started = time.perf_counter()
                self._write_rows(rows)
                # Wakes up at once when the model is going.
                self._closing.wait(_REST * (time.perf_counter() - started))
            elif self._closing.is_set():
                self._files.close()
                return

    def _take(self) -> list[_Row]:
        """What is queued, after waiting for the first a moment."""
        rows: list[_Row] = []
        try:
            rows.append(self._queue.get(timeout=0 if self._closing.is_set() else _POLL_S))
            while len(rows) < _BATCH:
                rows.append(self._queue.get_nowait())
        except queue.Empty:
            pass
        return rows

    def _write_rows(self, rows: list[_Row]) -> None:
        lines = [line for row in rows if (line := self._line(row)) is not None]
        written = 0
        if lines:
            written = self._files.append(lines)
            self._count("written", written)
        if written < len(lines):
            self._count("disk", len(lines) - written)

    def _line(self, row: _Row) -> bytes | None:
        if len(row.text) > LONGEST_TEXT:
            self._count("length", 1)
            return None
        try:
            text = self._masker.mask(row.text)
        except Exception:  # a text that can't be masked must not be written, whatever the reason
            self._count("masking", 1)
            return None
        record = {
            "text": text,
            "label": row.label,
            "score": round(row.score, 6),
            "truncated": row.truncated,
            **self._about,
            "time": datetime.fromtimestamp(row.time_s, UTC).isoformat(timespec="milliseconds"),
        }
        return json.dumps(record, ensure_ascii=False).encode() + b"\n"


def _rows(answered: Answered, time_s: float) -> Iterator[_Row]:
    columns = (answered.texts, answered.labels, answered.scores, answered.truncated)
    for text, label, score, truncated in zip(*columns, strict=True):
        yield _Row(text, label, float(score), bool(truncated), time_s)


def capture_files(directory: str, max_mb: float, max_file_mb: float, writers: int) -> CaptureFiles:
    """The files of one of `writers` processes: all their open files together leave half of the room to closed ones."""
    most = min(max_file_mb, max_mb / (2 * writers))
    return CaptureFiles(Path(directory), max_bytes=int(max_mb * 1e6), max_file_bytes=int(most * 1e6))
