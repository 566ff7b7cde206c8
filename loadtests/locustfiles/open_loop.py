"""Open-loop load as a Locust user. `slipway loadtest` runs it; it also runs by itself:

    locust -f loadtests/locustfiles/open_loop.py --headless -u 1 --host 127.0.0.1:8080 --bundle runs/reviews/bundle

A Locust user is closed-loop by nature: it waits for its answer before its next task. Here one user stands for all
callers: its task has the whole plan sent (see `loadtests.dispatch`), and each request ends in Locust's `request` event
with its time counted from the schedule. So Locust's statistics, web UI, CSV and HTML reports and plug-ins work as
always; only its user count means nothing and is 1 for each process. Its percentiles are rounded to two digits;
`--samples` keeps the exact times. The warm-up is not in its statistics.

The requests are sent by asyncio in a thread of its own, not by gevent, on which Locust runs. gRPC reaches gevent only
through a pool of native threads: a request took 1.5 ms of processor time against 0.8 ms, and on two busy cores gRPC's
median came out 1–2.5 ms above an independent client's. Price: a standard library that gevent has patched has no native
threads left, so Locust must run without the patch; it does its own waiting through gevent either way.

For more than one core sends, start a master with `-u N --expect-workers N -t DURATION` and N workers with
`--workers-total N`, all with the same other arguments: each sends every N-th arrival of the same plan.
"""

import asyncio
import contextlib
import json
import os
import resource
import sys
import threading
import time
from argparse import Namespace
from collections import deque
from collections.abc import Callable
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
from locust.runners import LocalRunner, WorkerRunner

from loadtests.address import resolve
from loadtests.dispatch import drive
from loadtests.plan import Plan, draw_plan
from loadtests.samples import Recorder, write_samples
from loadtests.texts import load_texts
from slipway.bundle import Bundle
from slipway.errors import SlipwayError
from slipway.recipe import LoadTest

# A master sleeps while it waits for its workers; gevent has to hear them meanwhile.
monkey.patch_time()

_HAND_OVER_S = 0.1
_PROGRESS_INTERVAL_S = 0.5

_SECTION_ARGUMENTS: dict[str, Callable[[str], Any]] = {
    "rate": float,
    "duration_s": float,
    "warmup_s": float,
    "arrivals": str,
    "protocols": lambda text: text.split(","),
    "seed": int,
    "timeout_s": float,
}


@events.init_command_line_parser.add_listener  # type: ignore[untyped-decorator]
def add_arguments(parser: Any) -> None:
    """Offer the recipe's `loadtest` section as arguments, on the command line and in the web UI."""
    parser.add_argument("--bundle", help="bundle whose model is served there", default="")
    parser.add_argument("--texts", help="file with columns text and predicted, instead of the bundle's own", default="")
    parser.add_argument("--samples", help="write one row per request to this Parquet file", default="")
    parser.add_argument("--allow-remote", action="store_true", help="the endpoint isn't on this machine, and is mine")
    parser.add_argument("--workers-total", type=int, default=1, help="workers that share the plan")
    parser.add_argument("--progress-fd", type=int, default=-1, include_in_web_ui=False)
    for name, kind in _SECTION_ARGUMENTS.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=kind, default=getattr(LoadTest(), name))


class OpenLoop(User):  # type: ignore[misc]
    """All callers of the endpoint; a second one in the same process would send the plan a second time, and stops."""

    driving = False

    @task  # type: ignore[untyped-decorator]
    def send_the_plan(self) -> None:
        """Send the plan, keep the samples, end the run."""
        if OpenLoop.driving:
            raise StopUser
        OpenLoop.driving = True
        try:
            _run(self.environment, self.environment.parsed_options)
        finally:
            OpenLoop.driving = False
        if isinstance(self.environment.runner, LocalRunner) and self.environment.web_ui is None:
            self.environment.runner.quit()
        raise StopUser


def _run(environment: Any, options: Namespace) -> None:
    try:
        section = LoadTest.model_validate({name: getattr(options, name) for name in _SECTION_ARGUMENTS})
        bundle = Bundle.open(Path(options.bundle), verify=False)
        texts = load_texts(bundle, Path(options.texts) if options.texts else None)
        address = resolve(environment.host or "", allow_remote=options.allow_remote)
        worker = environment.runner.worker_index if isinstance(environment.runner, WorkerRunner) else 0
        plan = draw_plan(section, len(texts)).share(worker, options.workers_total)
        recorder = Recorder(plan, list(section.protocols))
        ended: deque[tuple[int, float, str, str]] = deque()
        _allow_many_connections()
        sending = _Thread(
            drive(plan, section, address, bundle.spec.name, texts, recorder, lambda *end: ended.append(end))
        )
        _tell_locust(environment, options, section, bundle.spec.name, plan, ended, sending)
        if options.samples:
            file = Path(options.samples)
            write_samples(
                recorder.table(), file if options.workers_total == 1 else file.with_stem(f"{file.stem}-{worker}")
            )
    except SlipwayError as error:
        environment.process_exit_code = 1
        _report(options.progress_fd, error=str(error))
        print(error, file=sys.stderr, flush=True)


class _Thread:
    """A native thread with an event loop for one coroutine; `result` raises what the coroutine raised."""

    def __init__(self, coroutine: Any) -> None:
        self._coroutine = coroutine
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._main, daemon=True)
        self._thread.start()

    def _main(self) -> None:
        try:
            asyncio.run(self._coroutine)
        except BaseException as error:
            self._error = error

    @property
    def running(self) -> bool:
        return self._thread.is_alive()

    def result(self) -> None:
        self._thread.join()
        if self._error is not None:
            raise self._error


def _tell_locust(
    environment: Any,
    options: Namespace,
    section: LoadTest,
    model: str,
    plan: Plan,
    ended: deque[tuple[int, float, str, str]],
    sending: _Thread,
) -> None:
    """Hand the requests that ended to Locust, a few times a second, until `sending` is done.

    In batches, so that Locust's bookkeeping takes the interpreter from the sending thread seldom.
    """
    recent: deque[float] = deque(maxlen=2000)
    failures = 0
    total_s = section.warmup_s + section.duration_s
    begun_s = told_s = time.monotonic()
    more = True
    while more:
        more = sending.running
        while ended:
            row, latency_ms, outcome, detail = ended.popleft()
            if plan.scheduled_s[row] < 0:
                continue
            failures += outcome != "ok"
            recent.append(latency_ms)
            environment.events.request.fire(
                request_type=section.protocols[plan.protocol[row]],
                name=model,
                response_time=latency_ms,
                response_length=0,
                exception=None if outcome == "ok" else RuntimeError(detail),
                context={},
            )
        if time.monotonic() - told_s >= _PROGRESS_INTERVAL_S:
            told_s = time.monotonic()
            p99_ms = float(np.percentile(recent, 99)) if recent else None
            _report(options.progress_fd, elapsed_s=min(told_s - begun_s, total_s), p99_ms=p99_ms, failures=failures)
        gevent.sleep(_HAND_OVER_S if more else 0)
    sending.result()


def _report(descriptor: int, **values: Any) -> None:
    """A line of JSON to the process that started this one, if one did."""
    if descriptor >= 0:
        os.write(descriptor, json.dumps(values).encode() + b"\n")


def _allow_many_connections() -> None:
    """A stalled server is owed a connection for every waiting HTTP request."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, PermissionError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
