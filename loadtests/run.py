"""A load test from start to verdict.

Locust runs in a process of its own, as the caller's work (a progress bar, a report) would otherwise make requests
late. The two share nothing but arguments, a pipe for progress and the Parquet file of samples; percentiles are
computed here, from that file.

Price: about a second to start Locust.
"""

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import pyarrow.parquet as pq

from loadtests.accompaniment import Accompaniment
from loadtests.address import resolve
from loadtests.page import verdict_page, write_page
from loadtests.plan import draw_plan
from loadtests.slo import judge
from loadtests.texts import load_texts
from slipway.artifacts import Artifact, inputs_digest, read_artifact, sha256_file, write_artifact
from slipway.bundle import Bundle
from slipway.errors import LoadTestError
from slipway.progress import progress
from slipway.recipe import LoadTest
from slipway.timeline import TIMELINE
from slipway.verdict import SAMPLES, VERDICT

_LAUNCHER = Path(__file__).with_name("launch.py")
_LOCUSTFILE = Path(__file__).parent / "locustfiles" / "open_loop.py"
_START_AND_STOP_S = 60.0


def run(
    bundle: Bundle,
    address: str,
    section: LoadTest,
    out: Path,
    *,
    texts: Path | None = None,
    endpoint: dict[str, Any] | None = None,
    allow_remote: bool = False,
    inputs: str | None = None,
    metrics_url: str | None = None,
    page: bool = True,
) -> Artifact:
    """Drive `section`'s load at the endpoint at `address` and write the verdict artifact to `out`.

    The endpoint must serve `bundle`, whose answers it is held to. `texts` replaces the bundle's own texts; `endpoint`
    says what is known about the server, for the record; `inputs` replaces the digest of what the verdict depends on,
    for a caller who started the server and knows what it was made from; `metrics_url` is where Triton's statistics are,
    found by itself on this machine; without `page` no report.html is drawn. The artifact is returned whatever the
    verdict's outcome is.

    Raises `LoadTestError` if no load could be driven: nothing answers, the model is unknown there, no texts, or an
    address that isn't this machine's without `allow_remote`. Then nothing is written.
    """
    numeric = resolve(address, allow_remote=allow_remote)
    # Both again in the generator; here for the sake of an early word about what can't work.
    draw_plan(section, len(load_texts(bundle, texts)))
    described = {"address": address, "model": bundle.spec.name, **(endpoint or {})}
    inputs = inputs or _inputs(bundle, address, section, texts)
    recipe = {"loadtest": section.model_dump(mode="json")}
    with write_artifact(
        out, "verdict", name=bundle.spec.name, inputs=inputs, parents=[bundle.artifact], recipe=recipe
    ) as draft:
        samples = draft.path / SAMPLES
        accompaniment = Accompaniment(section, numeric, bundle.spec.name, metrics_url)
        with accompaniment:
            _generate(bundle, numeric, section, texts, samples, accompaniment.progressed, allow_remote=allow_remote)
        verdict = judge(pq.read_table(samples), section, described)
        timeline = accompaniment.timeline(samples)
        draft.write_json(VERDICT, verdict.model_dump(mode="json"))
        draft.write_json(TIMELINE, timeline.model_dump(mode="json"))
        if page:
            write_page(draft.path, lambda: verdict_page(bundle.spec.name, verdict, timeline))
        draft.metrics.update(
            outcome=verdict.outcome,
            offered_rate=verdict.offered_rate,
            p50_ms=verdict.latency.p50,
            p95_ms=verdict.latency.p95,
            p99_ms=verdict.latency.p99,
            error_rate=verdict.error_rate,
        )
    return read_artifact(out, "verdict", verify=False)


def _inputs(bundle: Bundle, address: str, section: LoadTest, texts: Path | None) -> str:
    assets = {"address": address} | ({"texts": sha256_file(texts)} if texts else {})
    return inputs_digest("loadtests", section.model_dump(mode="json"), [bundle.artifact], assets=assets)


def _generate(
    bundle: Bundle,
    address: str,
    section: LoadTest,
    texts: Path | None,
    samples: Path,
    progressed: Callable[[dict[str, Any]], None],
    *,
    allow_remote: bool,
) -> None:
    """Run Locust until `samples` is written, showing progress."""
    arguments = {
        "--host": address,
        "--bundle": str(bundle.path),
        "--texts": str(texts.absolute()) if texts else "",
        "--samples": str(samples.absolute()),
        "--rate": repr(section.rate),
        "--duration-s": repr(section.duration_s),
        "--warmup-s": repr(section.warmup_s),
        "--arrivals": section.arrivals,
        "--protocols": ",".join(section.protocols),
        "--seed": repr(section.seed),
        "--timeout-s": repr(section.timeout_s),
    }
    options = [f"{name}={value}" for name, value in arguments.items()] + ["--allow-remote"] * allow_remote
    total_s = section.warmup_s + section.duration_s
    with _locust(options) as (process, reports, log):
        label = f"Load test at {section.rate:g} requests/s"
        with progress(label, round(total_s)) as advance:
            shown_s = 0
            for report in _lines(reports, total_s + 2 * section.timeout_s + _START_AND_STOP_S):
                if "error" in report:
                    raise LoadTestError(report["error"])
                progressed(report)
                advance(int(report["elapsed_s"]) - shown_s, note=_note(report))
                shown_s = int(report["elapsed_s"])
        process.wait()
        if not samples.is_file():
            raise LoadTestError(
                f"The load generator ended with code {process.returncode} before the run did: {_last_line(log)}"
            )


@contextlib.contextmanager
def _locust(options: list[str]) -> Iterator[tuple[subprocess.Popen[bytes], int, IO[bytes]]]:
    """Locust under way: its process, the pipe with its reports, its log; none of them is left afterwards.

    In a session of its own, so that Ctrl-C reaches only this process, which then ends it. The log is a file without a
    name: not even `kill -9` leaves it behind.
    """
    command = [sys.executable, "-P", str(_LAUNCHER), str(os.getpid()), "-f", str(_LOCUSTFILE)]
    command += ["--headless", "--users=1", "--spawn-rate=1", "--only-summary", "--loglevel=WARNING"]
    reports, writer = os.pipe()
    with tempfile.TemporaryFile() as log, contextlib.ExitStack() as cleanup:
        cleanup.callback(os.close, reports)
        try:
            process = subprocess.Popen(
                [*command, f"--progress-fd={writer}", *options],
                cwd=_LOCUSTFILE.parent,  # a locust.conf of the user's must not change the test
                env=_environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[writer],
                start_new_session=True,
            )
        finally:
            os.close(writer)
        cleanup.callback(_end, process)
        yield process, reports, log


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


def _lines(descriptor: int, within_s: float) -> Iterator[dict[str, Any]]:
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


def _note(report: dict[str, Any]) -> str:
    p99 = "warming up" if report["p99_ms"] is None else f"p99 {report['p99_ms']:.1f} ms"
    return f"{p99}, {report['failures']} failed"


def _last_line(log: IO[bytes]) -> str:
    log.seek(0)
    lines = log.read().decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing."
