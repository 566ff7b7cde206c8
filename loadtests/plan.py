"""The plan of a run: for every request its time, its protocol and its texts.

Independent streams come from one seed, so that a second protocol, more texts or larger requests don't move the
arrivals. The plan comes in chunks that are drawn as they are needed: a run of days takes no more memory than one of a
minute.

Workers share one plan, each sends every n-th request of it. So the streams of any number of workers superpose to
exactly the plan of one, whatever the process is: n metronomes of their own would beat against each other, n recordings
would be n times the load, and only Poisson streams of distinct seeds would add up to a Poisson stream (another one for
every n). Price: each worker draws the whole plan, about 0.1 µs a request.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from loadtests.arrivals import CHUNK, FloatArray, arrivals
from loadtests.mixes import IntArray, make_mix
from slipway.errors import LoadTestError
from slipway.recipe import LoadTest


@dataclass(frozen=True)
class Plan:
    """Requests in the order of their schedule, or a chunk of them; arrays `[requests]` unless said otherwise."""

    scheduled_s: FloatArray
    """Seconds after the start of the measured window, ascending; negative while warming up. NaN in a closed loop."""
    protocol: npt.NDArray[np.int8]
    """Index into the section's `protocols`."""
    sizes: npt.NDArray[np.int16]
    """Texts in the request."""
    sent_texts: IntArray
    """Rows of the texts, request after request, `[sum of sizes]`."""

    @cached_property
    def _ends(self) -> npt.NDArray[np.int64]:
        return np.cumsum(self.sizes, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.scheduled_s)

    @property
    def text_index(self) -> IntArray:
        """Row of each request's first text."""
        first: IntArray = self.sent_texts[self._ends - self.sizes]
        return first

    def texts_of(self, request: int) -> list[int]:
        """Rows of the texts of one request."""
        end = int(self._ends[request])
        found: list[int] = self.sent_texts[end - int(self.sizes[request]) : end].tolist()
        return found

    def share(self, index: int, of: int) -> "Plan":
        """Every `of`-th request from `index` on: what one of several workers sends."""
        mine = np.zeros(len(self), dtype=np.bool_)
        mine[index::of] = True
        texts = self.sent_texts[np.repeat(mine, self.sizes)]
        return Plan(self.scheduled_s[mine], self.protocol[mine], self.sizes[mine], texts)


def plan_chunks(section: LoadTest, texts: int, *, worker: int = 0, workers: int = 1) -> Iterator[Plan]:
    """The plan for `section` over `texts` texts, or one worker's share of it, in chunks; a seed gives one plan.

    A closed loop has no schedule: its plan is one of protocols and texts, without times and without end.
    """
    drawn = np.random.SeedSequence(_non_negative(section.seed)).spawn(5)
    times, protocol, text, batch, mix = (np.random.default_rng(seed) for seed in drawn)
    take = make_mix(section.traffic, text, mix, texts)
    sizes, weights = np.array(list(section.batch_sizes)), list(section.batch_sizes.values())
    scheduled = arrivals(times, section) if section.loop == "open" else _unscheduled()
    first = 0
    for chunk in scheduled:
        count = len(chunk)
        batches = batch.choice(sizes, size=count, p=weights).astype(np.int16)
        protocols = protocol.integers(len(section.protocols), size=count, dtype=np.int8)
        whole = Plan(chunk, protocols, batches, take(int(batches.sum(dtype=np.int64))))
        mine = whole if workers == 1 else whole.share((worker - first) % workers, workers)
        first += count
        if len(mine):
            yield mine


def draw_plan(section: LoadTest, texts: int) -> Plan:
    """The whole plan of an open loop at once, for whoever wants to look at it.

    Raises `LoadTestError` if the measured window would be empty.
    """
    require_arrivals(section)
    chunks = list(plan_chunks(section, texts))
    names = ("scheduled_s", "protocol", "sizes", "sent_texts")
    return Plan(*(np.concatenate([getattr(chunk, name) for chunk in chunks]) for name in names))


def require_arrivals(section: LoadTest) -> None:
    """Raise `LoadTestError` if nothing arrives within the measured window, or no spike; draws no more than it must."""
    # The window may be that of a capacity's probe or a comparison's block, which the recipe was not checked with.
    if section.misses_spikes:
        raise LoadTestError(f"loadtest: {section.misses_spikes}.")
    if section.loop == "closed" or any((chunk.scheduled_s >= 0).any() for chunk in plan_chunks(section, 1)):
        return
    if section.arrivals.process == "replay":
        raise LoadTestError(
            f"loadtest: nothing of the recording comes within {section.duration_s:g} s after the warm-up of "
            f"{section.warmup_s:g} s. Warm up for less, or set arrivals.speed: 1000 reads numbers in milliseconds."
        )
    raise LoadTestError(
        f"loadtest: nothing arrives within {section.duration_s:g} s at rate {section.rate:g}/s. "
        "Raise rate or duration_s."
    )


def count_texts(section: LoadTest, limit: int) -> int:
    """Texts that the run sends in all; `limit` if they are more or if nobody knows (a closed loop)."""
    if section.loop == "closed":
        return limit
    counted = 0
    for chunk in plan_chunks(section, 1):
        counted += int(chunk.sizes.sum(dtype=np.int64))
        if counted >= limit:
            return limit
    return counted


def _unscheduled() -> Iterator[FloatArray]:
    while True:
        yield np.full(CHUNK, np.nan)


def _non_negative(seed: int) -> int:
    """`SeedSequence` takes no negative numbers; recipes may."""
    return seed % 2**64
