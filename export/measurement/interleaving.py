"""How fast variants are beside each other, measured on this machine.

Two measurements, both with all variants and eager PyTorch taking turns, so that a machine that slows down slows all of
them down: a speed-up is a ratio of one run, not of two.

- `speeds`: batches of fixed shapes (1 × 32 up to 32 × 128), cut from real texts, since token numbers that are all alike
  sit in the cache. A turn is a few runs in a row after one that is not counted: alternating run by run, each variant
  would find the caches full of its rivals' weights, which made small int8 models 1.6 to 2 times as slow as they are
  alone. Slow variants get fewer turns, spread evenly over the same minutes.
- `interleaved_latencies`: single texts of the dev split, of all lengths in random order, one run a turn. That is what a
  caller meets; OpenVINO, which prepares each new shape, looks worse here than in `speeds`.

pyperf and torch.utils.benchmark were considered: both measure one function to the end before they start the next.
"""

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from slipway.errors import ExportError
from slipway.progress import progress

if TYPE_CHECKING:
    from slipway.predictor import Encoder

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]
Batch = Mapping[str, IntArray]
Run = Callable[[Batch], Any]

_TURN_S = 0.03
_LONGEST_TURN = 10
_FEWEST_TURNS = 5
_MOST_TURNS = 30
_LONG_S = 0.1
"""A run of this length has its caches to itself but for its first milliseconds: it needs no run before it."""


@dataclass(frozen=True, order=True)
class Shape:
    """So many rows of so many tokens; `str()` of it is `BATCHxTOKENS`."""

    batch: int
    tokens: int

    @classmethod
    def parse(cls, text: str) -> "Shape":
        """The shape written as `32x128`; raises `ExportError` if it isn't one."""
        batch, x, tokens = text.strip().lower().partition("x")
        if x and batch.isdecimal() and tokens.isdecimal() and int(batch) > 0 and int(tokens) > 1:
            return cls(int(batch), int(tokens))
        raise ExportError(f"{text!r} is not a shape; write batch x tokens, such as 1x128 or 32x128.")

    def __str__(self) -> str:
        return f"{self.batch}x{self.tokens}"


SHAPES = tuple(Shape(batch, tokens) for tokens in (32, 128) for batch in (1, 8, 32))
"""What the table of variants shows."""


@dataclass(frozen=True)
class Speed:
    """How fast a variant runs batches of one shape."""

    p50_ms: float
    p95_ms: float
    sequences_per_s: float
    """Rows of the batch over the median time."""
    spread: float
    """Interquartile range over the median: what is below it is noise."""
    runs: int


class Corpus:
    """Real texts as one stream of token numbers, from which batches of any shape are cut."""

    def __init__(self, encode: "Encoder", texts: Sequence[str]) -> None:
        rows = encode.tokenize(texts)
        if not rows:
            raise ExportError("there are no texts to measure with.")
        self._inputs = encode.inputs
        self._first = [row.ids[0] for row in rows[:1]]
        self._stream = np.array([number for row in rows for number in row.ids[1:]], dtype=np.int64)
        if not len(self._stream):
            raise ExportError("the texts to measure with have no tokens.")

    def batch(self, shape: Shape) -> dict[str, IntArray]:
        """`{input: int64 [batch, tokens]}`, not padded: a row begins as a text does and goes on with the stream."""
        ids = np.resize(self._stream, (shape.batch, shape.tokens))
        ids[:, 0] = self._first
        whole = {
            "input_ids": ids,
            "attention_mask": np.ones_like(ids),
            "token_type_ids": np.zeros_like(ids),
        }
        return {name: whole[name] for name in self._inputs}


def speeds(
    runs: Mapping[str, Run],
    shapes: Sequence[Shape],
    corpora: Corpus | Mapping[str, Corpus],
    *,
    budget_s: float = 60.0,
) -> dict[str, dict[Shape, Speed]]:
    """`{name: {shape: speed}}`, all of them taking turns.

    Args:
        runs: what runs a batch, by name.
        shapes: of the batches.
        corpora: what batches are cut from; by name if vocabularies differ.
        budget_s: about how long it may take; no run gets fewer than five turns for it.
    """
    batches = {
        (name, shape): (corpora if isinstance(corpora, Corpus) else corpora[name]).batch(shape)
        for name in runs
        for shape in shapes
    }
    cost = _warm_up(runs, batches)
    plan = {shape: _turns({name: cost[name, shape] for name in runs}, budget_s / len(shapes)) for shape in shapes}
    taken: dict[tuple[str, Shape], list[float]] = {key: [] for key in batches}
    with progress("Comparing speeds", sum(sum(turns.values()) for turns in plan.values())) as advance:
        for shape, turns in plan.items():
            for name in _schedule(turns):
                run, batch = runs[name], batches[name, shape]
                if cost[name, shape] < _LONG_S:
                    run(batch)
                for _ in range(_runs_of_a_turn(cost[name, shape])):
                    started = time.perf_counter()
                    run(batch)
                    taken[name, shape].append(time.perf_counter() - started)
                advance(1, note=f"{shape}")
    return {name: {shape: _speed(taken[name, shape], shape) for shape in shapes} for name in runs}


def _warm_up(runs: Mapping[str, Run], batches: Mapping[tuple[str, Shape], Batch]) -> dict[tuple[str, Shape], float]:
    """Seconds that a run of each batch takes about, after one that compiles and allocates."""
    cost = {}
    with progress("Warming up", len(batches)) as advance:
        for (name, shape), batch in batches.items():
            times: list[float] = []
            while len(times) < 2 or (len(times) < 3 and times[-1] < _LONG_S):
                started = time.perf_counter()
                runs[name](batch)
                times.append(time.perf_counter() - started)
            cost[name, shape] = min(times[1:])
            advance()
    return cost


def _runs_of_a_turn(seconds: float) -> int:
    return max(1, min(_LONGEST_TURN, round(_TURN_S / max(seconds, 1e-6))))


def _turns(seconds: Mapping[str, float], budget_s: float) -> dict[str, int]:
    """Turns for each name, so that all have about the same time and together take about the budget."""
    each = budget_s / len(seconds)
    return {
        name: max(_FEWEST_TURNS, min(_MOST_TURNS, math.floor(each / (one * ((one < _LONG_S) + _runs_of_a_turn(one))))))
        for name, one in seconds.items()
    }


def _schedule(turns: Mapping[str, int]) -> Iterator[str]:
    """Each name as often as it has turns, evenly spread: the k-th of n turns comes at (k + ½) / n."""
    order = sorted(((turn + 0.5) / count, name) for name, count in turns.items() for turn in range(count))
    return iter([name for _, name in order])


def _speed(seconds: Sequence[float], shape: Shape) -> Speed:
    low, median, high, late = np.percentile(seconds, [25, 50, 75, 95])
    return Speed(
        p50_ms=round(float(median) * 1e3, 4),
        p95_ms=round(float(late) * 1e3, 4),
        sequences_per_s=round(shape.batch / float(median), 2),
        spread=round(float((high - low) / median), 4),
        runs=len(seconds),
    )


@contextlib.contextmanager
def torch_model(model: Any, threads: int) -> Iterator[Run]:
    """A transformers model in eager PyTorch as a function of numpy inputs `[batch, tokens]`.

    PyTorch's thread count is the process's; it is put back at the end, since sums depend on it.
    """
    import torch

    def run(inputs: Batch) -> FloatArray:
        with torch.inference_mode():
            logits: FloatArray = model(
                **{name: torch.from_numpy(value) for name, value in inputs.items()}
            ).logits.numpy()
            return logits

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield run
    finally:
        torch.set_num_threads(before)


def interleaved_latencies(
    runs: Mapping[str, Run], inputs: Sequence[Batch] | Mapping[str, Sequence[Batch]], *, warmup: int = 10
) -> dict[str, dict[str, float]]:
    """`{name: {"p50", "p95"}}` in ms over `inputs` (by name if they differ): every function on each, in turns."""
    given = inputs if isinstance(inputs, Mapping) else dict.fromkeys(runs, inputs)
    count = len(next(iter(given.values())))
    # Inputs come sorted by length; callers don't, and an engine that prepares each new shape must show it.
    rows = [int(row) for row in np.random.default_rng(0).permutation(count)]
    taken: dict[str, list[float]] = {name: [] for name in runs}
    order = [*rows[:warmup], *rows]
    with progress("Measuring latency of the variants", len(order)) as advance:
        for turn, row in enumerate(order):
            for name, run in runs.items():
                one = given[name][row]
                started = time.perf_counter()
                run(one)
                if turn >= min(warmup, count):
                    taken[name].append(time.perf_counter() - started)
            advance()
    return {
        name: {
            "p50": round(float(np.median(values)) * 1e3, 3),
            "p95": round(float(np.percentile(values, 95)) * 1e3, 3),
        }
        for name, values in taken.items()
    }


def spread_by_length(texts: Sequence[str], count: int) -> list[int]:
    """Rows of `count` texts spread evenly over all lengths, the shortest and the longest included."""
    order = sorted(range(len(texts)), key=lambda row: len(texts[row]))
    if len(order) <= count:
        return order
    return [order[round(step * (len(order) - 1) / (count - 1))] for step in range(count)]
