"""One row per request, filled in as the run goes and written away as soon as nothing can change in it.

Requests come in pages, one for each chunk of the plan. A page's columns are arrays of its length from the start:
recording is two stores, nothing grows, and the garbage collector has nothing to walk while requests are timed. When
the last request of the oldest page has ended, a thread writes the page as a row group of the Parquet file. So memory is
that of the requests that are out, for a run of a minute and for one of a week.

Price: a file of many row groups (8192 rows each, some 0.2 MB), and about 2 ms for each in which Python is busy.
"""

import itertools
import json
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from loadtests.plan import Plan, plan_chunks
from slipway.errors import LoadTestError
from slipway.recipe import LoadTest
from slipway.verdict import GENERATORS, SAMPLE_COLUMNS, Generator

SCHEMA = pa.schema([(name, pa.type_for_alias(kind)) for name, kind in SAMPLE_COLUMNS.items()])

STARTED = "started_monotonic_s"
"""Key of the file's metadata: the start of the measured window on the generator's monotonic clock."""

UNSENT = "never sent: the generator was too far behind its schedule"

_MERGED_ROWS = 8192
_NOT_THE_PLAN = (
    "The samples of the workers are not the requests of the plan, each once. Do all of them have the same versions of "
    "Slipway and numpy?"
)
_OUTCOMES = ("timeout", "ok", "wrong", "error")


class Page:
    """What happened to each request of a chunk; times are seconds on the plan's clock."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.scheduled_s = plan.scheduled_s.copy()
        self.taken = len(plan)
        """Rows that are used; in a closed loop the rest is left over at the end."""
        self._sent_s = np.full(len(plan), np.nan)
        self._answered_s = np.full(len(plan), np.nan)
        self._outcome = np.zeros(len(plan), np.int8)
        self._details: dict[int, str] = {}
        self._versions: dict[str, int] = {"": 0}
        self._version = np.zeros(len(plan), np.int16)
        self._missing = len(plan)

    @property
    def complete(self) -> bool:
        """Every request has ended."""
        return self._missing == 0

    def sent(self, row: int, at_s: float) -> None:
        """The request of `row` was handed to its client."""
        self._sent_s[row] = at_s

    def answered(self, row: int, at_s: float, outcome: str, detail: str = "", version: str = "") -> None:
        """The request of `row` ended."""
        self._answered_s[row] = at_s
        self._outcome[row] = _OUTCOMES.index(outcome)
        self._version[row] = self._versions.setdefault(version, len(self._versions))
        if detail:
            self._details[row] = detail
        self._missing -= 1

    def close(self, at_s: float) -> int:
        """The run is over: what has no answer is a timeout with the time it took so far. Requests never sent."""
        never_sent = np.isnan(self._sent_s[: self.taken])
        waiting = np.isnan(self._answered_s[: self.taken])
        for row in np.flatnonzero(waiting):
            self._details[int(row)] = UNSENT if never_sent[row] else "no answer by the end of the run"
        self._sent_s[: self.taken][never_sent] = at_s
        self._answered_s[: self.taken][waiting] = at_s
        self._missing = 0
        return int(never_sent.sum())

    def table(self, protocols: list[str]) -> pa.Table:
        """The rows that were taken, as `SAMPLE_COLUMNS` says."""
        rows = slice(0, self.taken)
        scheduled, sent, answered = self.scheduled_s[rows], self._sent_s[rows], self._answered_s[rows]
        details = np.full(self.taken, "", dtype=np.object_)
        for row, detail in self._details.items():
            details[row] = detail
        columns = {
            "scheduled_s": scheduled,
            "lag_ms": (sent - scheduled) * 1000,
            "service_ms": (answered - sent) * 1000,
            "latency_ms": (answered - scheduled) * 1000,
            "protocol": _named(self.plan.protocol[rows], protocols),
            "outcome": _named(self._outcome[rows], list(_OUTCOMES)),
            "detail": details,
            "text_index": self.plan.text_index[rows],
            "warmup": scheduled < 0,
            "texts": self.plan.sizes[rows],
            "version": _named(self._version[rows], list(self._versions)),
        }
        return pa.table(columns, schema=SCHEMA)


class Recorder:
    """Pages in the order of the schedule, written to `file`, which exists whole (after `close`) or not at all."""

    def __init__(self, file: Path, protocols: list[str]) -> None:
        self._file = file
        self._partial = file.with_name(f".{file.name}.partial")
        self._protocols = protocols
        self._pages: deque[Page] = deque()
        self._writer: pq.ParquetWriter | None = None
        self._started_s: float | None = None
        self._thread = ThreadPoolExecutor(1, "samples")
        self._error: BaseException | None = None
        self.unsent = 0
        """Requests that were never sent; known after `close`."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.shutdown()
        if self._writer is not None:
            self._writer.close()
        self._partial.unlink(missing_ok=True)

    def started(self, at_s: float) -> None:
        """The measured window starts at `at_s` of the monotonic clock."""
        self._started_s = at_s

    @property
    def started_s(self) -> float | None:
        """What `started` was told; None before."""
        return self._started_s

    def begin(self, plan: Plan) -> Page:
        """A page for the next chunk."""
        self.write_complete()
        self._pages.append(Page(plan))
        return self._pages[-1]

    def write_complete(self) -> None:
        """Have the oldest pages written, as far as they are complete."""
        while self._pages and self._pages[0].complete:
            self._hand_over(self._pages.popleft())

    def end(self, at_s: float) -> None:
        """Nothing more is recorded: what has no answer is a timeout."""
        while self._pages:
            page = self._pages.popleft()
            self.unsent += page.close(at_s)
            self._hand_over(page)

    def skip(self, plan: Plan, at_s: float) -> None:
        """A chunk of which nothing was sent."""
        self.end(at_s)
        self._pages.append(Page(plan))
        self.end(at_s)

    def close(self, generators: Sequence[Generator]) -> None:
        """Finish the file, with what the generators say about themselves; raises what went wrong in writing it."""
        self._thread.shutdown()
        if self._error is not None:
            raise self._error
        writer = self._open()
        writer.add_key_value_metadata({GENERATORS: json.dumps([entry.model_dump() for entry in generators])})
        writer.close()
        self._partial.rename(self._file)

    def _hand_over(self, page: Page) -> None:
        self._thread.submit(self._write, page)

    def _write(self, page: Page) -> None:
        try:
            if self._error is None and page.taken:
                self._open().write_table(page.table(self._protocols))
        except BaseException as error:
            self._error = error

    def _open(self) -> pq.ParquetWriter:
        """Not before the load has started, as the file's schema carries the moment."""
        if self._writer is None:
            started = {} if self._started_s is None else {STARTED: repr(self._started_s)}
            self._writer = pq.ParquetWriter(self._partial, SCHEMA.with_metadata(started), compression="zstd")
        return self._writer


def read_samples(file: Path) -> pa.Table:
    """The samples in `file` with all its metadata, which `pq.read_table` leaves out in part."""
    table = pq.read_table(file)
    metadata = {**(table.schema.metadata or {}), **(pq.read_metadata(file).metadata or {})}
    metadata.pop(b"ARROW:schema", None)
    return table.replace_schema_metadata(metadata)


def share_file(samples: Path, worker: int) -> Path:
    """Where one of several workers writes its samples."""
    return samples.with_stem(f"{samples.stem}-{worker}")


def merge_shares(samples: Path, workers: int, started_s: float | None = None) -> None:
    """Put the files of `workers` workers together in the order of the schedule, and remove them.

    Worker i has every so-many-th request from the i-th on, so the files are read side by side, the same number of rows
    of each at a time: no more is in memory, however long they are. `started_s` is the start by the clock of this
    machine, where the workers were on others.
    """
    files = [share_file(samples, worker) for worker in range(workers)]
    shares = [pq.ParquetFile(file) for file in files]
    said = [(share.metadata.metadata or {}).get(GENERATORS.encode(), b"[]") for share in shares]
    generators = [entry for line in said for entry in json.loads(line)]
    metadata = {**(shares[0].schema_arrow.metadata or {}), GENERATORS: json.dumps(generators)}
    if started_s is not None:
        metadata = {key: value for key, value in metadata.items() if key not in (STARTED, STARTED.encode())}
        metadata[STARTED] = repr(started_s)
    partial = samples.with_name(f".{samples.name}.partial")
    with pq.ParquetWriter(partial, SCHEMA.with_metadata(metadata), compression="zstd") as writer:
        for batches in itertools.zip_longest(*(share.iter_batches(_MERGED_ROWS) for share in shares)):
            table = pa.Table.from_batches([batch.replace_schema_metadata() for batch in batches if batch], SCHEMA)
            writer.write_table(table.sort_by("scheduled_s"))
    partial.rename(samples)
    for share, file in zip(shares, files, strict=True):
        share.close()
        file.unlink()


def require_all(samples: Path, section: LoadTest, texts: int) -> None:
    """Raise `LoadTestError` unless the file has each request of the plan once, of an open loop over `texts` texts.

    Workers on machines of their own each draw the plan, and only the same library draws the same.
    """
    if section.loop == "closed":
        return
    schedule = (chunk for chunk in plan_chunks(section, texts))
    planned = next(schedule, None)
    taken = 0
    sent, wanted = np.zeros(texts, np.int64), np.zeros(texts, np.int64)
    with pq.ParquetFile(samples) as file:
        for batch in file.iter_batches(_MERGED_ROWS, columns=["scheduled_s", "text_index"]):
            times = batch["scheduled_s"].to_numpy()
            sent += np.bincount(batch["text_index"].to_numpy(), minlength=texts)
            while len(times):
                part = times[: len(planned) - taken] if planned is not None else times
                expected = planned.scheduled_s[taken : taken + len(part)] if planned is not None else times[:0]
                if not np.array_equal(part, expected):
                    raise LoadTestError(_NOT_THE_PLAN)
                times, taken = times[len(part) :], taken + len(part)
                if planned is not None and taken == len(planned):
                    wanted += np.bincount(planned.text_index, minlength=texts)
                    planned, taken = next(schedule, None), 0
    if planned is not None or not np.array_equal(sent, wanted):
        raise LoadTestError(_NOT_THE_PLAN)


def _named(codes: npt.NDArray[np.int8] | npt.NDArray[np.int16], names: list[str]) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(codes), pa.array(names, pa.string())).cast(pa.string())
