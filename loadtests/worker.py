"""A worker for masters on other machines: it sends what they say, one run after the other.

Each run is a Locust worker of its own, as each of the master's is a Locust master of its own (`generator`), so that a
search for the capacity finds its workers again for every probe. Texts, plan and address come from the master; whether
load may go to another machine than this one is this side's to allow, since a worker does what any master says.
"""

from loadtests.generator import last_line, locust
from loadtests.reports import Deadline, lines
from slipway.errors import LoadTestError
from slipway.progress import complain, say

_FOR_EVER_S = 1e9
_SAY_EVERY_S = 5.0
_NO_MASTER = 255
"""Locust's exit code when it has tried to reach its master for five minutes."""


def work(host: str, port: int, *, allow_remote: bool = False, once: bool = False, wait_s: float | None = None) -> int:
    """Send for the masters that come up at `host:port`; returns how many runs were driven to their end.

    Returns after the first run with `once`, and when no master has called for `wait_s`. Raises `LoadTestError` if none
    has called by then at all, if Locust doesn't run here, and with `once` if the run comes to nothing.
    """
    driven = called = 0
    deadline = Deadline(wait_s or _FOR_EVER_S)
    say(f"Waiting for a master at {host}:{port}")
    while True:
        run = _Run(host, port, allow_remote=allow_remote)
        why = run.drive(deadline)
        called += run.begun
        driven += run.over
        if once and run.begun:
            if why is not None:
                raise LoadTestError(why)
            return driven
        if why is not None and run.begun:
            complain(why)
        if run.begun:
            deadline = Deadline(wait_s or _FOR_EVER_S)
        elif not deadline.left_s:
            if not called:
                raise LoadTestError(f"No master called from {host}:{port} within {wait_s:g} s. {why or ''}".strip())
            return driven


class _Run:
    """One Locust worker, from waiting for a master to the end of its run."""

    def __init__(self, host: str, port: int, *, allow_remote: bool) -> None:
        self._arguments = ["--worker", f"--master-host={host}", f"--master-port={port}"]
        self._arguments += ["--allow-remote"] * allow_remote
        self.begun = False
        """A master gave it something to do."""
        self.over = False
        """The master has all that it wants."""

    def drive(self, deadline: Deadline) -> str | None:
        """Wait for a master until `deadline`, then send for it; what went wrong, if anything did."""
        error: str | None = None
        said_s = 0.0
        with locust([self._arguments], farewell=True) as running:
            try:
                for report in lines(running.reports, deadline):
                    error = report.get("error", error)
                    self.over |= "over" in report
                    if "begun" in report:
                        self.begun = True
                        # From now on the master says when it is over, and its silence does, too.
                        deadline.put_off(_FOR_EVER_S)
                        say(f"Sending to {report['begun']}")
                    if report.get("p99_ms") is not None and report["elapsed_s"] >= said_s + _SAY_EVERY_S:
                        said_s = report["elapsed_s"]
                        say(
                            f"  {report['elapsed_s']:.0f} s: p99 {report['p99_ms']:.1f} ms, {report['failures']} failed"
                        )
            except TimeoutError:
                return None
            code = running.processes[0].wait()
            if not self.begun and code not in (0, _NO_MASTER):
                raise LoadTestError(f"The load generator ended with code {code}: {last_line(running.log)}")
            if error is None and not self.over:
                error = "The master went away." if self.begun else last_line(running.log)
        if self.over:
            say("Sent, and handed over to the master")
        return None if self.over else error
