"""One promotion, from a repository on disk to the version that everybody gets, or back.

    verify    digests, and that it is the same model: name, task, labels in the same order
    load      a second Triton beside the first, which must give its bundle's checks and be healthy over both protocols
    compare   both are asked the texts that are known: they must agree on enough of them
    shadow    if asked for: copies of requests, whose answers nobody sees
    canary    a growing share of the requests, each step watched and judged (`serving.rollout.judgement`)
    switch    the old version finishes what it has, and is ended

Nothing touches the stable version before the last line. Whatever goes wrong before it ends in the same way back: the
candidate gets no more requests, finishes those it has, and is ended; a candidate that dies isn't mended, it has failed.
The old version stays warm at 0 % while the new one is watched at 100 %, so the way back is open until the end.

It runs in a thread of the supervisor, not in the process that asks for it: that one may be closed, and half a rollout
must not stay behind. The thread decides; the supervisor's loop acts (`Supervisor.do`).
"""

import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from serving.repository import Repository
from serving.rollout.evidence import count, in_flight
from serving.rollout.judgement import Window
from serving.rollout.sampling import Asked, Sampling
from serving.rollout.watch import Counts, Watch
from serving.server.envoy_admin import SILENT
from serving.server.installation import installed
from serving.server.triton import staged
from serving.server.versions import Release, ServedVersion, stage
from slipway.bundle import SPEC, BundleSpec
from slipway.errors import ServingError, SlipwayError
from slipway.places import is_full_disk
from slipway.recipe.rollout import Rollout

if TYPE_CHECKING:
    from serving.server.supervisor import Supervisor

State = Literal[
    "loading", "comparing", "shadow", "canary", "switching", "promoted", "rolled back", "refused", "aborted"
]

_POLL_S = 0.1
_PORT_ATTEMPTS = 3
_MOST_BAKES = 3
"""A step that stays unclear is watched for so many times its length."""


class RolledBackError(ServingError):
    """The candidate is out of bounds; the message says which and by how much."""


class AbortedError(ServingError):
    """Somebody asked for the end."""


@dataclass
class Progress:
    """How far it is, for `slipway promote --status`."""

    state: State = "loading"
    version: int = 0
    repository: str = ""
    percent: int = 0
    shadow: int = 0
    figures: str = ""
    message: str = ""


class Promotion:
    """Promotes the repository at `repository` as `rollout` says; `tell` hears every step."""

    def __init__(
        self,
        supervisor: "Supervisor",
        repository: Path,
        rollout: Rollout,
        texts: Sequence[str],
        tell: Callable[[str], None],
    ) -> None:
        self._supervisor = supervisor
        self._fleet = supervisor.fleet
        self._repository = repository
        self._rollout = rollout
        self._texts = texts
        self._tell = tell
        self._aborted = threading.Event()
        self._candidate: ServedVersion | None = None
        self._stable_window = Window()
        self.progress = Progress(repository=str(repository))

    def abort(self) -> None:
        """Ask for the way back; returns at once."""
        self._aborted.set()

    def run(self) -> Progress:
        """Go the whole way, or back; how it ended."""
        progress = self.progress
        try:
            sampling = self._load()
            self._compare(sampling)
            if self._rollout.shadow:
                self._step(sampling, "shadow", percent=0, shadow=self._rollout.shadow)
            for percent in self._rollout.steps:
                self._step(sampling, "canary", percent=percent, shadow=0)
            self._switch()
            progress.state = "promoted"
            progress.message = f"version {progress.version} of {self._supervisor.plan.model} answers everybody."
        except RolledBackError as error:
            self._end("rolled back", str(error))
        except AbortedError as error:
            self._end("aborted", str(error))
        except (SlipwayError, OSError) as error:
            full = "no space left to stage it; free some in the folder for temporary files (TMPDIR). "
            self._end("refused", (full if is_full_disk(error) else "") + str(error))
        except Exception:
            self._end("refused", f"promoting failed:\n{traceback.format_exc()}")
        return progress

    # Loading

    def _load(self) -> Sampling:
        repository = Repository.open(self._repository)
        self._require_same_model(repository)
        fleet, supervisor = self._fleet, self._supervisor
        version = self.progress.version = supervisor.do(fleet.next_version)
        self._say(f"version {version}: {self._repository}, beside version {fleet.stable.version}")
        stage(supervisor.runtime, repository.models, version)
        spec = repository.spec
        digest = repository.artifact.digest
        release = Release(version, str(self._repository), digest, spec.instances, spec.runner)
        candidate = self._candidate = supervisor.do(lambda: fleet.start_candidate(release))
        self._await_start(candidate)
        timeout_s = supervisor.plan.timeout_s
        model = supervisor.plan.model
        sampling = Sampling(Asked(fleet.stable, model, timeout_s), Asked(candidate, model, timeout_s), self._texts)
        for check in repository.bundle.checks:
            label = sampling.candidate.ask(check.text)
            if label != check.label:
                raise ServingError(f"it answers {label!r} to {check.text!r}; its bundle says {check.label!r}.")
        supervisor.do(lambda: fleet.share(0))
        self._await(lambda: fleet.is_healthy(candidate), "the front door finds it healthy")
        self._say(f"version {version} is loaded, gives its bundle's answers, and is healthy")
        return sampling

    def _require_same_model(self, repository: Repository) -> None:
        plan = self._supervisor.plan
        installed(plan.triton).require(repository, plan.target)
        directory = staged(self._supervisor.runtime.path, self._fleet.stable.version)
        served = BundleSpec.model_validate_json(next(directory.rglob(SPEC)).read_text(encoding="utf-8"))
        for what, ours, theirs in (
            ("model", repository.spec.model, plan.model),
            ("task", repository.bundle.task, served.task),
            ("labels", repository.bundle.labels, served.labels),
        ):
            if ours != theirs:
                raise ServingError(
                    f"{self._repository} has the {what} {ours!r}, and the endpoint {theirs!r}; callers would not "
                    "understand its answers. Serve it as an endpoint of its own."
                )

    def _await_start(self, candidate: ServedVersion) -> None:
        attempts = 1
        timeout_s = self._supervisor.plan.start_timeout_s
        deadline = time.monotonic() + timeout_s
        while candidate.became_ready() is None:
            if not candidate.process.is_running:
                if not candidate.found_its_ports_taken() or attempts == _PORT_ATTEMPTS:
                    raise ServingError(f"it can't be served: {candidate.process.obituary()}")
                attempts += 1
                candidate.move()
                self._supervisor.do(candidate.start)
            elif time.monotonic() > deadline:
                words = candidate.process.last_words()
                raise ServingError(f"it was not ready after {timeout_s:g} s. {words}")
            self._pause()

    # Judging

    def _compare(self, sampling: Sampling) -> None:
        self.progress.state = "comparing"
        agreement = sampling.compare(lambda: self._pause(0))
        self.progress.figures = str(agreement)
        if agreement.share < self._rollout.min_agreement:
            raise RolledBackError(f"{agreement}; at least {self._rollout.min_agreement:.1%} must agree.")
        self._say(f"{agreement}; at least {self._rollout.min_agreement:.1%} must agree")
        self._fleet.front.infer_service_time(self._required(), self._fleet.stable, sampling.slowness())

    def _step(self, sampling: Sampling, state: Literal["shadow", "canary"], *, percent: int, shadow: int) -> None:
        """Watch the candidate with a share of the traffic until it is judged."""
        candidate, fleet, rollout = self._required(), self._fleet, self._rollout
        self.progress.state, self.progress.percent, self.progress.shadow = state, percent, shadow
        self._supervisor.do(lambda: fleet.share(percent, shadow))
        fleet.front.await_applied()
        what = f"copies of {shadow} %" if state == "shadow" else f"{percent} %"
        self._say(f"version {candidate.version} gets {what} of the requests, for {rollout.bake_s:g} s")
        watch = Watch(sampling, rollout, lambda: self._counts(candidate), self._stable_window)
        started = time.monotonic()
        while True:
            self._pause(min(_POLL_S, watch.pace_s))
            self._require_alive(candidate)
            judgement = watch.look()
            if judgement is None:
                continue
            self.progress.figures = judgement.figures
            if judgement.state == "breached":
                raise RolledBackError(f"with {what} of the requests: {judgement.figures}.")
            baked = (time.monotonic() - started) / rollout.bake_s
            if judgement.state == "within" and baked >= 1:
                break
            if baked >= _MOST_BAKES:
                raise RolledBackError(
                    f"with {what} of the requests it could not be shown to keep its bounds within "
                    f"{_MOST_BAKES * rollout.bake_s:g} s: {judgement.figures}."
                )
        self._stable_window = watch.stable
        self._say(f"version {candidate.version} with {what} of the requests: {judgement.figures}")

    def _require_alive(self, candidate: ServedVersion) -> None:
        if not candidate.process.is_running:
            raise RolledBackError(f"its server died: {candidate.process.obituary()}")
        if missing := candidate.missing_stubs():
            raise RolledBackError(f"{missing} of its {candidate.processes} model processes died.")

    def _counts(self, candidate: ServedVersion) -> Counts:
        admin = self._fleet.front.admin
        try:
            return count(admin, candidate), count(admin, self._fleet.stable)
        except SILENT:
            return None

    # Ending

    def _switch(self) -> None:
        self.progress.state = "switching"
        old = self._fleet.stable
        self._await_idle(old)
        self._surely(self._fleet.promote)
        self._candidate = None
        old.remove()
        self._say(f"version {old.version} has answered what it had, and is ended")

    def _end(self, state: State, message: str) -> None:
        """The way back."""
        candidate = self._candidate
        if candidate is not None:
            self._surely(lambda: self._fleet.share(0))
            if candidate.process.is_running:
                self._await_idle(candidate)
            self._surely(self._fleet.withdraw)
            candidate.remove()
        self.progress.state, self.progress.percent, self.progress.shadow = state, 0, 0
        self.progress.message = message

    def _surely(self, action: Callable[[], object]) -> None:
        """Have the loop do what must be done, and Envoy take it up; on a full disk, as soon as there is some space."""
        told = False
        while True:
            try:
                self._supervisor.do(action)
            except (OSError, ServingError) as error:
                if not told:
                    self._say(f"the front door's configuration can't be written, which is tried on: {error}")
                told = True
                time.sleep(1.0)
            else:
                self._fleet.front.await_applied()
                return

    def _await_idle(self, served: ServedVersion) -> None:
        """Wait until `served`, which gets no more requests, has answered those it had."""
        deadline = time.monotonic() + self._supervisor.plan.timeout_s + 1
        while time.monotonic() < deadline:
            try:
                if not in_flight(self._fleet.front.admin, served):
                    return
            except SILENT:
                return
            time.sleep(_POLL_S)

    # Waiting

    def _await(self, condition: Callable[[], bool], what: str) -> None:
        timeout_s = self._supervisor.plan.start_timeout_s
        deadline = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > deadline:
                raise ServingError(f"it took more than {timeout_s:g} s until {what}.")
            self._require_alive(self._required())
            self._pause()

    def _pause(self, seconds: float = _POLL_S) -> None:
        if self._aborted.wait(seconds):
            raise AbortedError("it was aborted.")

    def _required(self) -> ServedVersion:
        if self._candidate is None:
            raise RuntimeError("there is no candidate")
        return self._candidate

    def _say(self, message: str) -> None:
        self._tell(message)
        self._supervisor.note(message)
