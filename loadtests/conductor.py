"""The master's side of a run with workers: it waits for them, hands out shares, says when to begin, sees who is lost.

Workers that were started beside it (`generator`) read the same files. Those elsewhere (`--hand-out`) get all that they
need from here, and their samples are fetched when the last of them has sent its share, so that nothing but heartbeats,
statistics and a line of progress a second is on the way while requests are timed.

A worker that is lost takes its samples with it, and what the others measured is not the load that was asked for. So the
run is over then, with a reason.
"""

import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import gevent

from loadtests.job import Handout
from loadtests.parcels import Parcel, Parcels
from loadtests.reports import report
from loadtests.samples import share_file
from loadtests.together import (
    DONE,
    HELLO,
    JOB,
    OVER,
    PING,
    PONG,
    PROGRESS,
    READY,
    SILENCE_S,
    START,
    boot_id,
)
from slipway import __version__
from slipway.bundle import Bundle
from slipway.errors import SlipwayError
from slipway.recipe import LoadTest

_AHEAD_S = 1.0
"""Time for the word to begin to reach every worker."""
_LOOK_S = 1.0
_FLUSH_S = 0.5
_LOCUSTS_PATIENCE_S = 4.0
"""Until Locust calls a silent worker missing."""


class Conductor:
    """Of one master; `section` is None where workers read it for themselves."""

    def __init__(self, environment: Any, section: LoadTest | None) -> None:
        options = environment.parsed_options
        self._environment = environment
        self._runner = environment.runner
        self._workers: int = options.workers_total
        self._fd: int = options.progress_fd
        self._wait_s: float = options.wait_s
        self._samples = Path(options.samples) if options.samples else None
        self._parcels = Parcels(self._runner, master=True)
        self._hosts: dict[str, str] = {}
        """Workers that take part, and where they are."""
        self._shares: dict[str, int] = {}
        self._ready: set[str] = set()
        self._done: dict[str, Parcel | None] = {}
        self._boot = boot_id()
        self._zero_s: float | None = None
        self._ended = False
        self._handout: Handout | None = None
        self._scratch = TemporaryDirectory()
        if section is not None:
            model = Bundle.open(Path(options.bundle), verify=False).spec.name
            self._warmup_s = section.warmup_s
            self._handout = Handout(
                self._parcels, section, model, Path(options.texts), environment.host or "", Path(self._scratch.name)
            )
        listeners = {
            HELLO: self._on_hello, PING: self._on_ping, READY: self._on_ready, PROGRESS: self._on_progress,
            DONE: self._on_done,
        }  # fmt: skip
        for message, listener in listeners.items():
            self._runner.register_message(message, listener)
        environment.events.quitting.add_listener(self._on_quitting)
        gevent.spawn(self._watch)

    def _on_hello(self, environment: Any, msg: Any, **_: Any) -> None:  # noqa: ARG002
        worker, host = msg.node_id, str(msg.data["host"])
        if msg.data["version"] != __version__:
            self._fail(f"The worker on {host} has Slipway {msg.data['version']}, and this is {__version__}.")
        elif self._handout is None or len(self._shares) == self._workers:
            self._runner.send_message(OVER, {"error": "The master needs no more workers."}, client_id=worker)
        else:
            self._hosts[worker] = host
            self._shares[worker] = len(self._shares)
            self._runner.send_message(JOB, self._handout.share(self._shares[worker]), client_id=worker)

    def _on_ping(self, environment: Any, msg: Any, **_: Any) -> None:  # noqa: ARG002
        answer = {"asked": msg.data["asked"], "said": time.monotonic(), "boot": self._boot}
        self._runner.send_message(PONG, answer, client_id=msg.node_id)

    def _on_ready(self, environment: Any, msg: Any, **_: Any) -> None:  # noqa: ARG002
        self._ready.add(msg.node_id)
        if len(self._ready) == self._workers:
            begins_s = time.monotonic() + _AHEAD_S
            for worker in self._ready:
                self._runner.send_message(START, {"at": begins_s}, client_id=worker)
            if self._handout is not None:
                self._zero_s = begins_s + self._warmup_s
            if self._environment.web_ui is not None:
                # It may start another run.
                self._ready.clear()

    def _on_progress(self, environment: Any, msg: Any, **_: Any) -> None:  # noqa: ARG002
        report(self._fd, **(msg.data | {"pid": msg.node_id, "zero_s": self._zero_s}))

    def _on_done(self, environment: Any, msg: Any, **_: Any) -> None:  # noqa: ARG002
        if msg.data.get("error"):
            self._fail(msg.data["error"])
            return
        parcel = msg.data.get("parcel")
        self._done[msg.node_id] = Parcel(**parcel) if parcel else None
        if len(self._done) == self._workers and self._environment.web_ui is None:
            # Not from here: quitting ends the greenlet that this runs in, and samples come through it.
            gevent.spawn(self._finish)

    def _finish(self) -> None:
        try:
            for worker, parcel in self._done.items():
                if parcel is not None and self._samples is not None:
                    report(self._fd, fetching=parcel.size)
                    self._parcels.fetch(parcel, share_file(self._samples, self._shares[worker]), worker)
        except SlipwayError as error:
            self._fail(str(error), invalid=True)
            return
        if self._ended:
            return
        self._ended = True
        for worker in self._shares:
            self._runner.send_message(OVER, {}, client_id=worker)
        report(self._fd, zero_s=self._zero_s)
        self._runner.quit()

    def _watch(self) -> None:
        """Wait for the workers, then see whether they are still there."""
        if self._environment.web_ui is not None:
            return
        until_s = time.monotonic() + self._wait_s
        here = -1
        while not self._ended and self._runner.worker_count < self._workers:
            if self._runner.worker_count != here:
                here = self._runner.worker_count
                report(self._fd, workers=here)
            if time.monotonic() > until_s:
                self._fail(self._nobody(here))
                return
            gevent.sleep(_LOOK_S / 4)
        if not self._ended:
            report(self._fd, workers=self._workers)
        while not self._ended:
            if self._handout is None:
                self._hosts |= dict.fromkeys(self._runner.clients, "")
            self._look()
            gevent.sleep(_LOOK_S)

    def _nobody(self, here: int) -> str:
        if self._handout is None:
            return f"Only {here} of {self._workers} workers started within {self._wait_s:g} s."
        port = self._environment.parsed_options.master_bind_port
        return (
            f"Only {here} of {self._workers} workers came within {self._wait_s:g} s. Start each, wherever it is to "
            f"be, with: slipway loadtest worker --master ADDRESS_OF_THIS_MACHINE:{port}"
        )

    def _look(self) -> None:
        lost = [worker for worker in self._hosts if self._is_lost(worker)]
        if lost:
            self._fail(self._lost(lost), invalid=self._begun)

    def _is_lost(self, worker: str) -> bool:
        node = self._runner.clients.get(worker)
        # Locust counts beats down, one a second, from before it calls a worker missing.
        return node is None or node.heartbeat < _LOCUSTS_PATIENCE_S - SILENCE_S

    def _lost(self, workers: list[str]) -> str:
        # Locust names a worker by its host and something random.
        names = ", ".join(self._hosts[worker] or worker.rpartition("_")[0] for worker in workers)
        if not self._begun:
            return f"{len(workers)} of {self._workers} workers ({names}) went away before the load began."
        return (
            f"{len(workers)} of {self._workers} workers ({names}) were lost while the load ran, and their requests "
            "with them: what is left is not the load that was asked for."
        )

    @property
    def _begun(self) -> bool:
        return len(self._ready) == self._workers

    def _on_quitting(self, **_: Any) -> None:
        """Locust ends a run by itself when its last worker says goodbye."""
        if self._ended or self._environment.web_ui is not None or not self._hosts:
            return
        gone = [worker for worker in self._hosts if worker not in self._runner.clients]
        if gone:
            self._ended = True
            report(self._fd, error=self._lost(gone), invalid=self._begun)

    def _fail(self, why: str, *, invalid: bool = False) -> None:
        if self._ended:
            return
        self._ended = True
        self._environment.process_exit_code = 1
        print(why, file=sys.stderr, flush=True)
        for worker in self._shares:
            self._runner.send_message(OVER, {"error": why}, client_id=worker)

        def quit_() -> None:
            # Who reads the report ends this process at once; the workers have to hear of it before.
            gevent.sleep(_FLUSH_S)
            report(self._fd, error=why, invalid=invalid)
            if self._environment.web_ui is None:
                self._runner.quit()

        # Not from here: quitting ends the greenlet that messages are handled in.
        gevent.spawn(quit_)
