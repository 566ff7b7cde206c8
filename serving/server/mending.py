"""What is done when a Triton or its model dies or hangs: one step at a time, so that the supervisor's loop never waits.

    model processes died, or hang          →  load the model again beside what lives (0.3 s for a small one)
    that doesn't end, or Triton died, hangs →  start Triton again (1 to 2 s)
    too many repairs in a row               →  give up, with the reason

Triton never notices that a model process died: it goes on handing requests to it, and a dead one is always free. So the
processes are counted at every tick (`/proc`, microseconds), and the front door's health, a real inference, is watched
beside that for whatever counting can't see.

All times are of the monotonic clock: a jump of the wall clock restarts nothing.
"""

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import psutil

from serving.server.triton import ModelNotLoadedError
from serving.server.versions import ServedVersion
from slipway.errors import ServingError

_SHORTEST_LOAD_TIMEOUT_S = 15.0
_MOST_REPAIRS, _HEALTHY_S = 8, 3.0
_SAYING_S = 1.0


class Budget:
    """So many repairs in a row, with no healthy stretch between them; what needs more is not mended by repairing.

    Not so many in a minute: of a model that takes half a minute to load, that would be for ever.
    """

    def __init__(self, most: int = _MOST_REPAIRS, healthy_s: float = _HEALTHY_S) -> None:
        self._most = most
        self._healthy_s = healthy_s
        self._in_a_row = 0
        self._healthy_since: float | None = None

    def spend(self, why: Callable[[], str]) -> None:
        """Take one; raises `ServingError` with `why()` if there is none."""
        if self._healthy_since is not None and time.monotonic() - self._healthy_since >= self._healthy_s:
            self._in_a_row = 0
        self._healthy_since = None
        if self._in_a_row >= self._most:
            raise ServingError(
                f"giving up after {self._most} repairs with less than {self._healthy_s:g} s of health between them: "
                f"{why()}"
            )
        self._in_a_row += 1

    def healthy(self) -> None:
        """What was repaired answers again."""
        self._healthy_since = self._healthy_since or time.monotonic()


class Newborn:
    """The model processes that Triton starts while it loads a model. When one dies before it is ready, Triton waits.

    It waits for ever, unless the process ended by itself with an error; then it says so in a moment.
    """

    def __init__(self, served: ServedVersion) -> None:
        self._served = served
        self._before = set(served.living_stubs())
        self._seen: set[psutil.Process] = set()
        self._died_at: float | None = None

    def is_awaited_in_vain(self) -> bool:
        """Whether one has been dead for longer than Triton takes to say so."""
        living = set(self._served.living_stubs())
        self._seen |= living - self._before
        if self._seen <= living:
            return False
        self._died_at = self._died_at or time.monotonic()
        return time.monotonic() - self._died_at > _SAYING_S


class Mending:
    """Keeps one version, which is ready, answering; `patience_s` is how long it may answer nobody."""

    def __init__(self, served: ServedVersion, patience_s: float, tell: Callable[[str], None]) -> None:
        self._served = served
        self._patience_s = patience_s
        self._load_timeout_s = max(_SHORTEST_LOAD_TIMEOUT_S, 5 * served.start_s)
        self._tell = tell
        self._budget = Budget()
        self._loader = ThreadPoolExecutor(1, "loads the model again")
        self._load: Future[None] | None = None
        self._starting = False
        self._newborn = Newborn(served)
        self._what = ""
        self._since = self._healthy_at = time.monotonic()

    def step(self, *, healthy: bool) -> bool:
        """Do what is due; whether Triton got other ports. Raises `ServingError` if it can't be mended."""
        if self._load is not None:
            self._await_load(self._load)
        elif self._starting:
            return self._await_start()
        elif not self._served.process.is_running:
            self._start(self._served.process.ending())
        elif missing := self._served.missing_stubs():
            self._reload(f"{missing} of {self._served.processes} model processes died")
        elif healthy:
            self._healthy_at = time.monotonic()
            self._budget.healthy()
        elif time.monotonic() - self._healthy_at > self._patience_s:
            self._wake()
        return False

    def close(self) -> None:
        """Mend no more."""
        self._loader.shutdown(wait=False)

    def _wake(self) -> None:
        """Whoever hangs is ended: all of Triton if it doesn't even say what it is, else its model processes."""
        silence = f"has not answered for {self._patience_s:g} s"
        if self._served.server.answering() is None:
            self._start(f"Triton {silence}")
        else:
            self._served.kill_stubs()
            self._reload(f"the model {silence}")

    def _reload(self, what: str) -> None:
        self._begin(what)
        self._newborn = Newborn(self._served)
        self._load = self._loader.submit(self._served.server.reload, self._load_timeout_s)

    def _await_load(self, load: Future[None]) -> None:
        if not load.done():
            if not self._served.process.is_running:
                self._served.sweep()
            elif self._newborn.is_awaited_in_vain():
                self._load = None
                self._start(f"{self._what}; another died while the model was loaded again")
            return
        self._load = None
        try:
            load.result()
        except ModelNotLoadedError as error:
            # The stubs are as they were, so the next step tries again.
            self._tell(f"{self._what}; {error}")
        except ServingError as error:
            ended = "" if self._served.process.is_running else f"; {self._served.process.ending()}"
            self._start(f"{self._what}; {error}{ended}")
        else:
            self._served.find_stubs()
            self._done("the model was loaded again")

    def _start(self, what: str) -> None:
        self._begin(what)
        self._starting = True
        self._served.start()
        self._newborn = Newborn(self._served)

    def _await_start(self) -> bool:
        process = self._served.process
        if not process.is_running:
            moved = self._served.found_its_ports_taken()
            if moved:
                self._served.move()
            self._start(f"{self._what}; {process.ending()} while it was started again")
            return moved
        if self._served.became_ready() is not None:
            self._starting = False
            self._done("Triton was started again")
        elif self._newborn.is_awaited_in_vain():
            self._start(f"{self._what}; a model process died while Triton was started again")
        elif time.monotonic() - self._since > self._load_timeout_s:
            self._start(f"{self._what}; Triton was not ready again after {self._load_timeout_s:.0f} s")
        return False

    def _begin(self, what: str) -> None:
        self._budget.spend(lambda: f"{what}. {self._served.process.last_words()}")
        self._what = what
        self._since = time.monotonic()

    def _done(self, how: str) -> None:
        self._healthy_at = time.monotonic()
        self._tell(f"{self._what}; {how} in {self._healthy_at - self._since:.1f} s")
