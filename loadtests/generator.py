"""Locust under way: one process, or a master with its workers, and what it says meanwhile.

Locust runs in processes of its own, as the caller's work (a progress bar, a report) would otherwise make requests late.
They share nothing with it but arguments, a pipe for progress and the Parquet file of samples. Workers may run on other
machines (`Elsewhere`, `worker`); then only the master is started here.

Price: about a second to start, and two with workers.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from loadtests.reports import Deadline, Report, lines
from loadtests.samples import merge_shares, require_all, share_file
from loadtests.texts import read_texts
from slipway.bundle import Bundle
from slipway.errors import InvalidRunError, LoadTestError
from slipway.progress import progress, say
from slipway.recipe import LoadTest

_LAUNCHER = Path(__file__).with_name("launch.py")
_LOCUSTFILE = Path(__file__).parent / "locustfiles" / "load.py"
_START_AND_STOP_S = 60.0
_FETCH_S = 120.0
_FAREWELL_S = 3.0


@dataclass(frozen=True)
class Elsewhere:
    """Workers that were started on other machines: where this one listens for them, and for how long."""

    host: str
    """The address of an interface, 0.0.0.0 for all of them."""
    port: int
    wait_s: float = 300.0


def generate(
    bundle: Bundle,
    host: str,
    section: LoadTest,
    texts: Path,
    samples: Path,
    progressed: Callable[[Report], None],
    *,
    allow_remote: bool,
    elsewhere: Elsewhere | None = None,
) -> None:
    """Run Locust until `samples` is written, showing progress; `progressed` is called with every report.

    `host` is the address as the caller wrote it; `texts` are prepared. Without `elsewhere` the section's workers are
    started here. Raises `LoadTestError` if it comes to nothing, `InvalidRunError` if it does after the load had begun.
    """
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "section.json"
        file.write_text(section.model_dump_json(), encoding="utf-8")
        options = [f"--host={host}", f"--bundle={bundle.path.absolute()}", f"--texts={texts.absolute()}", "--prepared"]
        options += [f"--section={file}", f"--samples={samples.absolute()}", f"--workers-total={section.workers}"]
        options += ["--allow-remote"] * allow_remote
        options += [
            f"--wait-s={elsewhere.wait_s if elsewhere else _START_AND_STOP_S}",
            *["--hand-out"] * bool(elsewhere),
        ]
        total_s = section.warmup_s + section.duration_s
        deadline = Deadline(
            total_s + 2 * section.timeout_s + _START_AND_STOP_S + (elsewhere.wait_s if elsewhere else 0)
        )
        roles = _roles(section.workers, elsewhere)
        zero_s: float | None = None
        with locust([[*role, *options] for role in roles], farewell=elsewhere is not None) as running:
            shown_s = 0
            failures: dict[Any, int] = {}
            with progress(label(section), round(total_s)) as advance, _in_time(deadline):
                for report in lines(running.reports, deadline):
                    zero_s = report.get("zero_s") or zero_s
                    if _is_news(report, section.workers, elsewhere, deadline):
                        continue
                    failures[report["pid"]] = report["failures"]
                    report["failures"] = sum(failures.values())
                    progressed(report)
                    elapsed_s = max(int(report["elapsed_s"]), shown_s)
                    advance(elapsed_s - shown_s, note=_note(report))
                    shown_s = elapsed_s
            for process in running.processes:
                process.wait()
            shares = [share_file(samples, worker) for worker in range(section.workers)]
            if (section.workers > 1 or elsewhere) and all(share.is_file() for share in shares):
                merge_shares(samples, section.workers, zero_s if elsewhere else None)
            if not samples.is_file():
                codes = ", ".join(str(process.returncode) for process in running.processes)
                raise LoadTestError(
                    f"The load generator ended with code {codes} before the run did: {last_line(running.log)}"
                )
        if elsewhere:
            require_all(samples, section, len(read_texts(texts)))


def label(section: LoadTest) -> str:
    """What is being done, for a person."""
    if section.loop == "closed":
        return f"Closed-loop load test of {section.users} users"
    if section.arrivals.process == "replay":
        return "Load test from a recording"
    return f"Load test at {section.rate:g} requests/s"


@dataclass(frozen=True)
class Running:
    """Locust under way: its processes, the pipe with their reports, their log."""

    processes: list[subprocess.Popen[bytes]]
    reports: int
    log: IO[bytes]


@contextlib.contextmanager
def locust(each: Sequence[Sequence[str]], *, farewell: bool = False) -> Iterator[Running]:
    """Locust in a process for each list of arguments; none of them is left afterwards.

    In sessions of their own, so that Ctrl-C reaches only this process, which then ends them; with `farewell` they may
    tell other machines before. The log is a file without a name: not even `kill -9` leaves it behind.
    """
    command = [sys.executable, "-P", str(_LAUNCHER), str(os.getpid()), "-f", str(_LOCUSTFILE), "--loglevel=WARNING"]
    reports, writer = os.pipe()
    with tempfile.TemporaryFile() as log, contextlib.ExitStack() as cleanup:
        cleanup.callback(os.close, reports)
        processes = []
        try:
            for arguments in each:
                process = subprocess.Popen(
                    [*command, f"--progress-fd={writer}", *arguments],
                    cwd=_LOCUSTFILE.parent,  # a locust.conf of the user's must not change the test
                    env=_environment(),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    pass_fds=[writer],
                    start_new_session=True,
                )
                cleanup.callback(_end, process, _FAREWELL_S if farewell else 0)
                processes.append(process)
        finally:
            os.close(writer)
        yield Running(processes, reports, log)


def _roles(workers: int, elsewhere: Elsewhere | None) -> list[list[str]]:
    """Arguments of each process: one that is alone, or a master and its workers, as far as they run here."""
    headless = ["--headless", f"--users={workers}", f"--spawn-rate={workers}", "--only-summary"]
    master = ["--master", f"--expect-workers={workers}"]
    if elsewhere:
        return [[*headless, *master, f"--master-bind-host={elsewhere.host}", f"--master-bind-port={elsewhere.port}"]]
    if workers == 1:
        return [headless]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    master += ["--master-bind-host=127.0.0.1", f"--master-bind-port={port}"]
    worker = ["--worker", "--master-host=127.0.0.1", f"--master-port={port}"]
    return [[*headless, *master], *([worker] * workers)]


def _is_news(report: Report, workers: int, elsewhere: Elsewhere | None, deadline: Deadline) -> bool:
    """Whether `report` is of something else than a process's progress; raises the error that it may be of."""
    if "error" in report:
        raise InvalidRunError(report["error"]) if report.get("invalid") else LoadTestError(report["error"])
    if "workers" in report and elsewhere:
        say(f"{report['workers']} of {workers} workers are here ({elsewhere.host}:{elsewhere.port})")
    if "fetching" in report:
        # Nobody knows how fast the way is; a worker that hands over nothing ends the run before this does.
        deadline.put_off(_FETCH_S + report["fetching"] / 1e5)
    return "pid" not in report


@contextlib.contextmanager
def _in_time(deadline: Deadline) -> Iterator[None]:
    begun_s = deadline.left_s
    try:
        yield
    except TimeoutError:
        raise LoadTestError(f"The load generator did not end within {begun_s:.0f} s and was stopped.") from None


def _environment() -> dict[str, str]:
    """The caller's, without Locust's own settings (LOCUST_*, ~/.locust.conf), with this package importable.

    What the locustfile says about gevent's patch is done here, so that Locust need not begin twice.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LOCUST_")}
    packages = [str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    ours = {"HOME": str(_LOCUSTFILE.parent), "PYTHONPATH": os.pathsep.join(packages), "LOCUST_SKIP_MONKEY_PATCH": "1"}
    return kept | ours


def _end(process: subprocess.Popen[bytes], farewell_s: float) -> None:
    if process.poll() is None and farewell_s:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(farewell_s)
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _note(report: Report) -> str:
    p99 = "warming up" if report["p99_ms"] is None else f"p99 {report['p99_ms']:.1f} ms"
    return f"{p99}, {report['failures']} failed"


def last_line(log: IO[bytes]) -> str:
    """What Locust said last."""
    log.seek(0)
    lines = log.read().decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing."
