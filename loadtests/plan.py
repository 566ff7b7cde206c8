"""The plan of a run: for every arrival its time, its protocol and its text.

Three independent streams come from one seed, so that a second protocol or more texts don't move the arrivals.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from loadtests.arrivals import PROCESSES, FloatArray
from slipway.errors import LoadTestError
from slipway.recipe import LoadTest

MAX_ARRIVALS = 5_000_000


@dataclass(frozen=True)
class Plan:
    """Arrays of one length: what happens at each arrival."""

    scheduled_s: FloatArray
    """Seconds after the start of the measured window, ascending; negative while warming up."""
    protocol: npt.NDArray[np.int8]
    """Index into the section's `protocols`."""
    text_index: npt.NDArray[np.int32]
    """Row of the texts."""

    def __len__(self) -> int:
        return len(self.scheduled_s)

    def share(self, index: int, of: int) -> "Plan":
        """Every `of`-th arrival from `index` on: what one of several workers sends."""
        return Plan(self.scheduled_s[index::of], self.protocol[index::of], self.text_index[index::of])


def draw_plan(section: LoadTest, texts: int) -> Plan:
    """Draw the plan for `section` over `texts` texts; the same seed gives the same plan.

    Raises `LoadTestError` if the measured window would be empty or the plan wouldn't fit in memory.
    """
    total_s = section.warmup_s + section.duration_s
    if section.rate * total_s > MAX_ARRIVALS:
        raise LoadTestError(
            f"loadtest: rate {section.rate:g}/s for {total_s:g} s is {section.rate * total_s:.3g} requests; one run "
            f"plans at most {MAX_ARRIVALS:,}. Lower rate or duration_s."
        )
    times_seed, protocol_seed, text_seed = np.random.SeedSequence(_non_negative(section.seed)).spawn(3)
    times = PROCESSES[section.arrivals](np.random.default_rng(times_seed), section.rate, total_s) - section.warmup_s
    if not (times >= 0).any():
        raise LoadTestError(
            f"loadtest: nothing arrives within {section.duration_s:g} s at rate {section.rate:g}/s. "
            "Raise rate or duration_s."
        )
    protocols = np.random.default_rng(protocol_seed).integers(len(section.protocols), size=len(times), dtype=np.int8)
    return Plan(times, protocols, _shuffled_rounds(np.random.default_rng(text_seed), texts, len(times)))


def _shuffled_rounds(rng: np.random.Generator, texts: int, count: int) -> npt.NDArray[np.int32]:
    """Every text once in random order, then again in another: none comes twice before all have come."""
    rounds = np.concatenate([rng.permutation(texts) for _ in range(-(-count // texts))])
    return np.asarray(rounds[:count], dtype=np.int32)


def _non_negative(seed: int) -> int:
    """`SeedSequence` takes no negative numbers; recipes may."""
    return seed % 2**64
