"""Locust under way: one process, or a master with its workers, and what it says meanwhile.

Locust runs in processes of its own, as the caller's work (a progress bar, a report) would otherwise make requests late.
They share nothing with it but arguments, a pipe for progress and the Parquet file of samples.

Price: about a second to start, and two with workers.
"""

import contextlib
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from loadtests.samples import merge_shares, share_file
from slipway.bundle import Bundle
from slipway.errors import LoadTestError
from slipway.progress import progress
from slipway.recipe import LoadTest

Report = dict[str, Any]
"""`elapsed_s`, `p99_ms` (None while warming up), `failures`, `pid` of the process that says so, and `zero_s`: the start
of the measured window on this machine's monotonic clock (None until it is known)."""

_LAUNCHER = Path(__file__).with_name("launch.py")
_LOCUSTFILE = Path(__file__).parent / "locustfiles" / "load.py"
_START_AND_STOP_S = 60.0


def generate(
    bundle: Bundle,
    host: str,
    section: LoadTest,
    texts: Path,
    samples: Path,
    progressed: Callable[[Report], None],
    *,
    allow_remote: bool,
) -> None:
    """Run Locust until `samples` is written, showing progress; `progressed` is called with every report.

    `host` is the address as the caller wrote it; `texts` are prepared. Raises `LoadTestError` if it comes to nothing.
    """
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "section.json"
        file.write_text(section.model_dump_json(), encoding="utf-8")
        options = [f"--host={host}", f"--bundle={bundle.path.absolute()}", f"--texts={texts.absolute()}", "--prepared"]
        options += [f"--section={file}", f"--samples={samples.absolute()}", f"--workers-total={section.workers}"]
        options += ["--allow-remote"] * allow_remote
        total_s = section.warmup_s + section.duration_s
        with _locust(options, section.workers) as (processes, reports, log):
            shown_s = 0
            failures: dict[int, int] = {}
            with progress(label(section), round(total_s)) as advance:
                for report in _lines(reports, total_s + 2 * section.timeout_s + _START_AND_STOP_S):
                    if "error" in report:
                        raise LoadTestError(report["error"])
                    failures[report["pid"]] = report["failures"]
                    report["failures"] = sum(failures.values())
                    progressed(report)
                    elapsed_s = max(int(report["elapsed_s"]), shown_s)
                    advance(elapsed_s - shown_s, note=_note(report))
                    shown_s = elapsed_s
            for process in processes:
                process.wait()
            shares = [share_file(samples, worker) for worker in range(section.workers)]
            if section.workers > 1 and all(share.is_file() for share in shares):
                merge_shares(samples, section.workers)
            if not samples.is_file():
                codes = ", ".join(str(process.returncode) for process in processes)
                raise LoadTestError(f"The load generator ended with code {codes} before the run did: {_last_line(log)}")


def label(section: LoadTest) -> str:
    """What is being done, for a person."""
    if section.loop == "closed":
        return f"Closed-loop load test of {section.users} users"
    if section.arrivals.process == "replay":
        return "Load test from a recording"
    return f"Load test at {section.rate:g} requests/s"


@contextlib.contextmanager
def _locust(options: list[str], workers: int) -> Iterator[tuple[list[subprocess.Popen[bytes]], int, IO[bytes]]]:
    """Locust under way: its processes, the pipe with their reports, their log; none of them is left afterwards.

    In sessions of their own, so that Ctrl-C reaches only this process, which then ends them. The log is a file without
    a name: not even `kill -9` leaves it behind.
    """
    command = [sys.executable, "-P", str(_LAUNCHER), str(os.getpid()), "-f", str(_LOCUSTFILE), "--loglevel=WARNING"]
    reports, writer = os.pipe()
    with tempfile.TemporaryFile() as log, contextlib.ExitStack() as cleanup:
        cleanup.callback(os.close, reports)
        processes = []
        try:
            for role in _roles(workers):
                process = subprocess.Popen(
                    [*command, f"--progress-fd={writer}", *role, *options],
                    cwd=_LOCUSTFILE.parent,  # a locust.conf of the user's must not change the test
                    env=_environment(),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    pass_fds=[writer],
                    start_new_session=True,
                )
                cleanup.callback(_end, process)
                processes.append(process)
        finally:
            os.close(writer)
        yield processes, reports, log


def _roles(workers: int) -> list[list[str]]:
    """Arguments of each process: one that is alone, or a master and its workers."""
    headless = ["--headless", f"--users={workers}", f"--spawn-rate={workers}", "--only-summary"]
    if workers == 1:
        return [headless]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    master = ["--master", "--master-bind-host=127.0.0.1", f"--master-bind-port={port}", f"--expect-workers={workers}"]
    worker = ["--worker", "--master-host=127.0.0.1", f"--master-port={port}"]
    return [[*headless, *master], *([worker] * workers)]


def _environment() -> dict[str, str]:
    """The caller's, without Locust's own settings (LOCUST_*, ~/.locust.conf), with this package importable.

    What the locustfile says about gevent's patch is done here, so that Locust need not begin twice.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LOCUST_")}
    packages = [str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    ours = {"HOME": str(_LOCUSTFILE.parent), "PYTHONPATH": os.pathsep.join(packages), "LOCUST_SKIP_MONKEY_PATCH": "1"}
    return kept | ours


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _lines(descriptor: int, within_s: float) -> Iterator[Report]:
    """JSON lines from a pipe until its other end is closed, for `within_s` seconds at most."""
    deadline = time.monotonic() + within_s
    rest = b""
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_READ)
        while selector.select(max(deadline - time.monotonic(), 0)):
            chunk = os.read(descriptor, 65536)
            if not chunk:
                return
            *lines, rest = (rest + chunk).split(b"\n")
            yield from map(json.loads, lines)
    raise LoadTestError(f"The load generator did not end within {within_s:.0f} s and was stopped.")


def _note(report: Report) -> str:
    p99 = "warming up" if report["p99_ms"] is None else f"p99 {report['p99_ms']:.1f} ms"
    return f"{p99}, {report['failures']} failed"


def _last_line(log: IO[bytes]) -> str:
    log.seek(0)
    lines = log.read().decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing."
