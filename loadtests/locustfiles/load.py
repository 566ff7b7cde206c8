"""The load as a Locust user. `slipway loadtest` runs it; it also runs by itself:

    locust -f loadtests/locustfiles/load.py --headless -u 1 --host 127.0.0.1:8080 --bundle runs/reviews/bundle

A Locust user is closed-loop by nature: it waits for its answer before its next task. Here one user stands for all
callers: its task has the whole plan sent (see `loadtests.dispatch`), and each request ends in Locust's `request` event
with its time counted from the schedule. So Locust's statistics, web UI, CSV and HTML reports and plug-ins work as
always; only its user count means nothing and is 1 for each process. Its percentiles are rounded to two digits;
`--samples` keeps the exact times. The warm-up is not in its statistics.

The requests are sent by asyncio in a thread of its own, not by gevent, on which Locust runs. gRPC reaches gevent only
through a pool of native threads: a request took 1.5 ms of processor time against 0.8 ms, and on two busy cores gRPC's
median came out 1–2.5 ms above an independent client's. Price: a standard library that gevent has patched has no native
threads left, so Locust must run without the patch; it does its own waiting through gevent either way.

For more than one core sends, start a master with `-u N --expect-workers N` and N workers, all with `--workers-total N`
and the same other arguments: each sends every N-th request of the same plan, from one moment on that the master says
when all are ready (see `loadtests.together` and `loadtests.conductor`). With `--hand-out` a master gives its workers
all that they need and fetches their samples: they need no file of it.
"""

import asyncio
import contextlib
import json
import math
import os
import resource
import sys
import tempfile
import threading
import time
import traceback
from argparse import Namespace
from collections import deque
from pathlib import Path
from typing import Any

import gevent
from gevent import monkey

if monkey.is_module_patched("threading"):
    # `locust -f …` patched before it read this file: begin again without. The process stays the same.
    os.execve(sys.executable, sys.orig_argv, os.environ | {"LOCUST_SKIP_MONKEY_PATCH": "1"})  # noqa: S606

import numpy as np
from locust import User, events, task
from locust.exception import StopUser
from locust.runners import LocalRunner, MasterRunner, WorkerRunner

from loadtests.access import open_access
from loadtests.address import resolve, tls_host
from loadtests.conductor import Conductor
from loadtests.dispatch import Target, drive
from loadtests.exchange import End
from loadtests.job import Job
from loadtests.plan import plan_chunks, require_arrivals
from loadtests.reports import report
from loadtests.samples import Recorder, share_file
from loadtests.texts import load_texts, prepared_texts
from loadtests.together import Alone, Member
from slipway.bundle import Bundle
from slipway.errors import LoadTestError, SlipwayError
from slipway.recipe import LoadTest
from slipway.verdict import SAMPLES

# A master sleeps while it waits for its workers; gevent has to hear them meanwhile.
monkey.patch_time()

_HAND_OVER_S = 0.1
_PROGRESS_INTERVAL_S = 0.5
_MOST_KINDS_OF_ERROR = 100

# What the command line and the web UI may override of the section.
_OVERRIDES = {"rate": float, "duration_s": float, "warmup_s": float, "seed": int, "timeout_s": float}
_processes: dict[int, Alone] = {}
_masters: dict[int, Conductor] = {}


@events.init_command_line_parser.add_listener  # type: ignore[untyped-decorator]
def add_arguments(parser: Any) -> None:
    """Offer the recipe's `loadtest` section as arguments, on the command line and in the web UI."""
    parser.add_argument("--bundle", help="bundle whose model is served there", default="")
    parser.add_argument("--texts", help="file with columns text and predicted, instead of the bundle's own", default="")
    parser.add_argument("--samples", help="write one row per request to this Parquet file", default="")
    parser.add_argument("--allow-remote", action="store_true", help="the endpoint isn't on this machine, and is mine")
    parser.add_argument("--workers-total", type=int, default=1, help="workers that share the plan")
    parser.add_argument("--section", help="file with a recipe's loadtest section as JSON", default="")
    parser.add_argument("--arrivals", help="arrival process", default="")
    parser.add_argument("--protocols", help="grpc, http, generate, separated by commas", default="")
    parser.add_argument(
        "--hand-out", action="store_true", help="workers have no files; master only", include_in_web_ui=False
    )
    parser.add_argument("--wait-s", type=float, default=math.inf, include_in_web_ui=False)
    parser.add_argument("--prepared", action="store_true", include_in_web_ui=False)
    parser.add_argument("--progress-fd", type=int, default=-1, include_in_web_ui=False)
    for name, kind in _OVERRIDES.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=kind, default=None)


@events.init.add_listener  # type: ignore[untyped-decorator]
def join(environment: Any, **_: Any) -> None:
    """Let master and workers talk about the start."""
    options = environment.parsed_options
    if options is None:
        return
    if isinstance(environment.runner, MasterRunner):
        _masters[id(environment)] = Conductor(environment, _section(options) if options.hand_out else None)
    else:
        worker = isinstance(environment.runner, WorkerRunner)
        _processes[id(environment)] = Member(environment) if worker else Alone()


class Load(User):  # type: ignore[misc]
    """All callers of the endpoint; a second one in the same process would send the plan a second time, and stops."""

    driving = False

    @task  # type: ignore[untyped-decorator]
    def send_the_plan(self) -> None:
        """Send the plan, keep the samples, end the run."""
        if Load.driving:
            raise StopUser
        Load.driving = True
        try:
            _run(self.environment, self.environment.parsed_options)
        finally:
            Load.driving = False
        if isinstance(self.environment.runner, LocalRunner) and self.environment.web_ui is None:
            self.environment.runner.quit()
        raise StopUser


def _run(environment: Any, options: Namespace) -> None:
    process = _processes[id(environment)]
    progress_fd: int = process.progress_fd if isinstance(process, Member) else options.progress_fd
    try:
        with tempfile.TemporaryDirectory() as scratch:
            _send(environment, options, process, Path(scratch), progress_fd)
    except SlipwayError as error:
        environment.process_exit_code = 1
        report(progress_fd, error=str(error))
        print(error, file=sys.stderr, flush=True)
        process.failed(str(error))
    except Exception as error:
        # Locust would note it and send the plan once more.
        environment.process_exit_code = 1
        traceback.print_exc()
        why = f"The load generator failed: {type(error).__name__}: {error}"
        report(progress_fd, error=why)
        process.failed(why)


def _send(environment: Any, options: Namespace, process: Alone, scratch: Path, progress_fd: int) -> None:
    job = process.job(scratch) if options.hand_out and isinstance(process, Member) else _own_job(environment, options)
    section = job.section
    require_arrivals(section)
    access = open_access(section, tls_host(job.address))
    target = Target(resolve(job.address, allow_remote=job.allow_remote), job.model, job.texts, access)
    users = section.users // job.of + (job.share < section.users % job.of)
    ended: deque[End] = deque()
    _allow_many_connections()
    # Without --samples they are written and thrown away: nobody wants two ways to record.
    kept = bool(options.samples) and not options.hand_out
    samples = Path(options.samples) if kept else scratch / SAMPLES
    samples = share_file(samples, job.share) if job.of > 1 else samples
    with Recorder(samples, list(section.protocols)) as recorder:
        sending = _Thread(
            drive(
                plan_chunks(section, len(job.texts), worker=job.share, workers=job.of),
                section,
                target,
                recorder,
                ended.append,
                start=process.start,
                users=users,
                worker=job.share,
            )
        )
        _tell_locust(environment, progress_fd, section, job.model, ended, sending, process, recorder)
        generator = process.vouched(sending.result())
        if options.samples:
            recorder.close([generator])
        process.done(samples)


def _own_job(environment: Any, options: Namespace) -> Job:
    """What this process sends by its own arguments."""
    section = _section(options)
    require_arrivals(section)
    bundle = Bundle.open(Path(options.bundle), verify=False)
    file = Path(options.texts) if options.texts else None
    texts = load_texts(bundle, file) if options.prepared else prepared_texts(bundle, section, file)
    workers: int = options.workers_total
    worker = environment.runner.worker_index if isinstance(environment.runner, WorkerRunner) else 0
    if not 0 <= worker < workers:
        raise LoadTestError(f"This is worker {worker} of {workers}: say --workers-total as many as there are.")
    return Job(section, bundle.spec.name, texts, environment.host or "", worker, workers, options.allow_remote)


def _section(options: Namespace) -> LoadTest:
    given = json.loads(Path(options.section).read_text(encoding="utf-8")) if options.section else {}
    given |= {name: value for name in _OVERRIDES if (value := getattr(options, name)) is not None}
    given |= {"arrivals": options.arrivals} if options.arrivals else {}
    given |= {"protocols": options.protocols.split(",")} if options.protocols else {}
    given["workers"] = options.workers_total
    return LoadTest.model_validate_json(json.dumps(given))


class _Thread:
    """A native thread with an event loop for one coroutine; `result` is what it returned, or raises what it raised."""

    def __init__(self, coroutine: Any) -> None:
        self._coroutine = coroutine
        self._error: BaseException | None = None
        self._result: Any = None
        self._thread = threading.Thread(target=self._main, daemon=True)
        self._thread.start()

    def _main(self) -> None:
        try:
            self._result = asyncio.run(self._coroutine)
        except BaseException as error:
            self._error = error

    @property
    def running(self) -> bool:
        return self._thread.is_alive()

    def result(self) -> Any:
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._result


class _Kinds:
    """Errors as Locust shall count them: it keeps each text for ever, and some name a request."""

    def __init__(self) -> None:
        self._known: set[str] = set()

    def error(self, end: End) -> RuntimeError:
        if len(self._known) < _MOST_KINDS_OF_ERROR:
            self._known.add(end.detail)
        return RuntimeError(end.detail if end.detail in self._known else f"{end.outcome}, of another kind")


def _tell_locust(
    environment: Any,
    progress_fd: int,
    section: LoadTest,
    model: str,
    ended: deque[End],
    sending: _Thread,
    process: Alone,
    recorder: Recorder,
) -> None:
    """Hand the requests that ended to Locust, a few times a second, until `sending` is done.

    In batches, so that Locust's bookkeeping takes the interpreter from the sending thread seldom.
    """
    recent: deque[float] = deque(maxlen=2000)
    kinds = _Kinds()
    failures = 0
    total_s = section.warmup_s + section.duration_s
    begun_s = told_s = time.monotonic()
    more = True
    while more:
        more = sending.running
        process.tell()
        while ended:
            end = ended.popleft()
            if end.warmup:
                continue
            failures += end.outcome != "ok"
            recent.append(end.latency_ms)
            environment.events.request.fire(
                request_type=end.protocol,
                name=model,
                response_time=end.latency_ms,
                response_length=0,
                exception=None if end.outcome == "ok" else kinds.error(end),
                context={},
            )
        if time.monotonic() - told_s >= _PROGRESS_INTERVAL_S:
            told_s = time.monotonic()
            p99_ms = float(np.percentile(recent, 99)) if recent else None
            elapsed_s = min(told_s - begun_s, total_s)
            shown = {"elapsed_s": elapsed_s, "p99_ms": p99_ms, "failures": failures}
            report(progress_fd, pid=os.getpid(), zero_s=recorder.started_s, **shown)
            process.progressed(shown)
        gevent.sleep(_HAND_OVER_S if more else 0)
    sending.result()


def _allow_many_connections() -> None:
    """A stalled server is owed a connection for every waiting HTTP request."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, PermissionError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
