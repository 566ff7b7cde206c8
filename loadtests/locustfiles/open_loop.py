"""Open-loop load as a Locust user. `slipway loadtest` runs it; it also runs by itself:

    locust -f loadtests/locustfiles/open_loop.py --headless -u 1 --host 127.0.0.1:8080 --bundle runs/reviews/bundle

A Locust user is closed-loop by nature: it waits for its answer before its next task. Here one user stands for all
callers: its task walks the plan and starts a greenlet for every arrival (see `loadtests.dispatch`), and each
request ends in Locust's `request` event with its time counted from the schedule. So Locust's statistics, web UI,
CSV and HTML reports and plug-ins work as always; only its user count means nothing and is 1 for each process. Its
percentiles are rounded to two digits; `--samples` keeps the exact times. The warm-up is not in its statistics.

For more than one core sends, start a master with `-u N --expect-workers N -t DURATION` and N workers with
`--workers-total N`, all with the same other arguments: each sends every N-th arrival of the same plan.
"""

import contextlib
import json
import os
import resource
import time
from argparse import Namespace
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Importing locust patches the standard library for gevent, so it comes first.
from locust import User, events, task
from locust.exception import StopUser
from locust.runners import LocalRunner, WorkerRunner

import gevent  # isort: skip
import grpc.experimental.gevent as grpc_gevent  # isort: skip
import numpy as np  # isort: skip

from loadtests.address import resolve
from loadtests.dispatch import dispatch
from loadtests.plan import Plan, draw_plan
from loadtests.preflight import check
from loadtests.protocols import CLIENTS, Client
from loadtests.samples import Recorder, write_samples
from loadtests.texts import Texts, load_texts
from slipway.bundle import Bundle
from slipway.errors import SlipwayError
from slipway.recipe.sections import LoadTest

grpc_gevent.init_gevent()

_LEAD_S = 0.3
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
    def drive(self) -> None:
        """Send the plan, keep the samples, end the run."""
        if OpenLoop.driving:
            raise StopUser
        OpenLoop.driving = True
        try:
            self._drive()
        finally:
            OpenLoop.driving = False
        raise StopUser

    def _drive(self) -> None:
        options = self.environment.parsed_options
        report = _Report(options.progress_fd)
        try:
            _drive(self.environment, options, report)
        except SlipwayError as error:
            report.send(error=str(error))
            self.environment.process_exit_code = 1
            if options.progress_fd < 0:
                print(error, flush=True)
        if isinstance(self.environment.runner, LocalRunner) and self.environment.web_ui is None:
            self.environment.runner.quit()


def _drive(environment: Any, options: Namespace, report: "_Report") -> None:
    if not options.bundle:
        raise SlipwayError("Which bundle is served there? Give --bundle DIRECTORY.")
    section = LoadTest.model_validate({name: getattr(options, name) for name in _SECTION_ARGUMENTS})
    bundle = Bundle.open(Path(options.bundle), verify=False)
    texts = load_texts(bundle, Path(options.texts) if options.texts else None)
    address = resolve(environment.host or "", allow_remote=options.allow_remote)
    _allow_many_connections()
    plan = draw_plan(section, len(texts))
    worker = environment.runner.worker_index if isinstance(environment.runner, WorkerRunner) else 0
    with contextlib.ExitStack() as cleanup:
        clients = [CLIENTS[protocol](address, bundle.spec.name, section.timeout_s) for protocol in section.protocols]
        for protocol, client in zip(section.protocols, clients, strict=True):
            cleanup.callback(client.close)
            check(client, protocol, texts.sent[0])
        samples = _run(environment, plan.share(worker, options.workers_total), section, clients, texts, report)
    if options.samples:
        file = Path(options.samples)
        write_samples(samples, file if options.workers_total == 1 else file.with_stem(f"{file.stem}-{worker}"))


def _run(
    environment: Any, plan: Plan, section: LoadTest, clients: list[Client], texts: Texts, report: "_Report"
) -> Any:
    recorder = Recorder(plan, list(section.protocols))
    starts_at_s = time.monotonic() + _LEAD_S + section.warmup_s
    total_s = section.warmup_s + section.duration_s
    recent: deque[float] = deque(maxlen=2000)
    failures = 0

    def ended(row: int, latency_ms: float, outcome: str, detail: str) -> None:
        nonlocal failures
        failures += outcome != "ok"
        if plan.scheduled_s[row] < 0:
            return
        recent.append(latency_ms)
        environment.events.request.fire(
            request_type=section.protocols[plan.protocol[row]],
            name=clients[0].model,
            response_time=latency_ms,
            response_length=0,
            exception=None if outcome == "ok" else RuntimeError(detail),
            context={},
        )

    def tell() -> None:
        while True:
            gevent.sleep(_PROGRESS_INTERVAL_S)
            elapsed_s = min(max(time.monotonic() - starts_at_s + section.warmup_s, 0), total_s)
            p99_ms = float(np.percentile(recent, 99)) if recent else None
            report.send(elapsed_s=elapsed_s, p99_ms=p99_ms, failures=failures)

    telling = gevent.spawn(tell)
    try:
        dispatch(plan, clients, texts, recorder, starts_at_s, ended)
    finally:
        telling.kill()
    return recorder.table()


class _Report:
    """JSON lines to the process that started this one, if one did."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def send(self, **values: Any) -> None:
        if self._descriptor >= 0:
            os.write(self._descriptor, json.dumps(values).encode() + b"\n")


def _allow_many_connections() -> None:
    """A stalled server is owed a connection for every waiting HTTP request."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
