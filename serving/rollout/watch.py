"""The evidence of one step: what callers' requests gave since it began, and what asking both versions gave beside.

Requests of callers count as they are. Asked texts are added to the requests and failures, and their latencies stand in
for the callers' where those are too few for either version: figures of the same percentile must come from the same kind
of request.
"""

import time
from collections.abc import Callable
from dataclasses import replace

from serving.rollout.evidence import Count
from serving.rollout.judgement import Bounds, Judgement, Window, judge
from serving.rollout.sampling import Sampling
from slipway.recipe.rollout import Rollout

Counts = tuple[Count, Count] | None
"""Of the candidate and of the stable version; None when Envoy didn't answer."""

_COUNT_EVERY_S = 0.5
_ASKED_WITHIN = 0.8
"""Part of a step after which as many texts were asked as requests are needed, if each took no time."""
_LEAST_PACE_S = 0.02
"""Asking is there to judge, not to load."""


class Watch:
    """Gathers evidence from its making on. `before` is the stable version's window of an earlier step.

    It stands in when the stable version has no callers any more.
    """

    def __init__(self, sampling: Sampling, rollout: Rollout, counts: Callable[[], Counts], before: Window) -> None:
        self._sampling = sampling
        self._bounds = Bounds(rollout.max_error_rate, rollout.max_latency_ratio, rollout.min_requests)
        self._pace_s = max(_LEAST_PACE_S, _ASKED_WITHIN * rollout.bake_s / rollout.min_requests)
        self._counts = counts
        self._first = counts()
        self._before = before
        self._asked_at = self._counted_at = time.monotonic()
        self.stable = before
        """What callers' requests gave for the stable version, or the earlier window."""
        sampling.restart()

    @property
    def pace_s(self) -> float:
        """How long to wait between looks."""
        return min(_COUNT_EVERY_S, self._pace_s)

    def look(self) -> Judgement | None:
        """Ask the next text if it is time, and judge what there is; None if it isn't time, or Envoy didn't answer."""
        now = time.monotonic()
        if now - self._asked_at >= self._pace_s:
            self._asked_at = now
            self._sampling.ask_next()
        if now - self._counted_at < _COUNT_EVERY_S:
            return None
        self._counted_at = now
        latest = self._counts()
        if latest is None or self._first is None:
            self._first = self._first or latest
            return None
        candidate, stable = (late.since(first) for late, first in zip(latest, self._first, strict=True))
        if stable.timed >= self._bounds.min_requests:
            self.stable = stable
        return judge(*self._with_asked(candidate, self.stable), self._bounds)

    def _with_asked(self, candidate: Window, stable: Window) -> tuple[Window, Window]:
        asked = self._sampling.candidate.window(), self._sampling.stable.window()
        enough = min(candidate.timed, stable.timed) >= self._bounds.min_requests
        candidate, stable = (
            replace(
                called,
                requests=called.requests + beside.requests,
                errors=called.errors + beside.errors,
                latencies=called.latencies if enough else beside.latencies,
            )
            for called, beside in zip((candidate, stable), asked, strict=True)
        )
        return candidate, stable
