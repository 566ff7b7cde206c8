"""Arrival processes: when requests come, decided by nothing that the server does.

That is what makes the load open-loop. A closed-loop user waits for its answer before it sends again, so a server that
stalls silences its own critics ("coordinated omission", Gil Tene, *How NOT to Measure Latency*, 2015).

    rescaling.py   a rate that changes over time, and how points of one process become points of another
    poisson.py, constant.py, ramp.py, steps.py, spikes.py, diurnal.py, replay.py   one process each

A process is one function from (generator, window, its section) to chunks of ascending times, and one line in
`PROCESSES`. Chunks, because a run may last for days: memory does not grow with its length.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from loadtests.arrivals.constant import constant
from loadtests.arrivals.diurnal import diurnal
from loadtests.arrivals.poisson import poisson
from loadtests.arrivals.ramp import ramp
from loadtests.arrivals.replay import replay
from loadtests.arrivals.rescaling import CHUNK, FloatArray, Window
from loadtests.arrivals.spikes import spikes
from loadtests.arrivals.steps import steps
from slipway.recipe import LoadTest

Process = Callable[[np.random.Generator, Window, Any], Iterator[FloatArray]]

PROCESSES: dict[str, Process] = {
    "poisson": poisson,
    "constant": constant,
    "ramp": ramp,
    "steps": steps,
    "spikes": spikes,
    "diurnal": diurnal,
    "replay": replay,
}


def arrivals(rng: np.random.Generator, section: LoadTest) -> Iterator[FloatArray]:
    """Chunks of ascending times in s after the start of the measured window; negative while warming up."""
    window = Window(section.rate, section.warmup_s, section.duration_s)
    return PROCESSES[section.arrivals.process](rng, window, section.arrivals)


__all__ = ["CHUNK", "PROCESSES", "FloatArray", "Window", "arrivals"]
