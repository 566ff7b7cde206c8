"""What the model counts, and how it reaches Triton's page of metrics.

The model's processes share Triton's registry: a counter of the same name and labels is the same counter in all of them,
so values add up over instances, and outlive a process that dies and a model that is loaded again.

Each change of such a counter is a message to Triton and back, so an answer never pays for one: what a call of `execute`
adds is summed up in a list of numbers, and a thread hands the sums over once a second. The price: a page that is up to
a second old, and the last second of a process that is killed.

Histograms are made of counters: `…_bucket` with the label `le`, `…_sum` and `…_count`. This Triton has histograms of
its own for Python models, which take a message for each observed value; counters take one for each bucket that changed,
however many requests there were. `exposition` gives the three their common type again.

Every series exists from the start, at 0: an alert on a rate needs a value before the first event, and a dashboard that
lists refusals should list those that never happened.
"""

import ctypes
import threading
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, get_args

from serving.model.observation import Executed, Refusal

FLUSH_INTERVAL_S = 1.0

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds of a time's buckets, in seconds."""
SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)
"""Upper bounds of a probability's buckets."""


class Registry:
    """Sums that wait to be handed over to counters of Triton's.

    `triton` is the module `triton_python_backend_utils`; `labels` are on every series.
    """

    def __init__(self, triton: Any, labels: dict[str, str]) -> None:
        self._triton = triton
        self._labels = labels
        self._families: dict[str, Any] = {}
        self._counters: list[Any] = []
        self._sums: list[float] = []
        self._lock = threading.Lock()

    def counter(self, name: str, about: str, **labels: str) -> int:
        """The place of a counter, for `add`."""
        if name not in self._families:
            kind = self._triton.MetricFamily.COUNTER
            self._families[name] = _kept(self._triton.MetricFamily(name=name, description=about, kind=kind))
        self._counters.append(_kept(self._families[name].Metric(labels={**self._labels, **labels})))
        self._sums.append(0.0)
        return len(self._sums) - 1

    def histogram(self, name: str, about: str, bounds: Sequence[float], **labels: str) -> "Histogram":
        """Buckets up to each of `bounds`, and one for all."""
        ends = [*(f"{bound:g}" for bound in bounds), "+Inf"]
        buckets = [self.counter(f"{name}_bucket", about, le=end, **labels) for end in ends]
        total = self.counter(f"{name}_sum", about, **labels)
        count = self.counter(f"{name}_count", about, **labels)
        return Histogram(tuple(bounds), tuple(buckets), total, count)

    def add(self, changes: Sequence[tuple[int, float]]) -> None:
        """Add to the counters at the places."""
        with self._lock:
            for place, amount in changes:
                self._sums[place] += amount

    def flush(self) -> None:
        """Hand over what has come together; a message to Triton for each counter that changed."""
        with self._lock:
            sums, self._sums = self._sums, [0.0] * len(self._sums)
        for place, amount in enumerate(sums):
            if amount:
                try:
                    self._counters[place].increment(amount)
                except Exception:  # whatever Triton raises, it may take the sum the next time
                    self.add([(place, amount)])


def _kept(handle: Any) -> Any:
    """Keep Triton's counter behind `handle` for the life of Triton, even when this process ends in good order.

    Triton counts references to a series for each process by itself: the first one to let go of a series that others
    share would remove it from under them, as when a model is loaded again and the old processes end.
    """
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(handle))
    return handle


@dataclass(frozen=True)
class Histogram:
    """The places of a histogram's counters."""

    bounds: tuple[float, ...]
    buckets: tuple[int, ...]
    total: int
    count: int

    def observe(self, values: Sequence[float]) -> list[tuple[int, float]]:
        """What `values` change."""
        if not values:
            return []
        hits = [0] * len(self.buckets)
        for value in values:
            hits[bisect_left(self.bounds, value)] += 1
        changes: list[tuple[int, float]] = [(self.total, sum(values)), (self.count, len(values))]
        changes += [(place, hit) for place, hit in zip(self.buckets, accumulate(hits), strict=True) if hit]
        return changes


class Metrics:
    """An `Observer` that counts. `labels` are those of the bundle; a thread flushes until `close`."""

    def __init__(self, registry: Registry, labels: Sequence[str], *, interval_s: float = FLUSH_INTERVAL_S) -> None:
        counter, histogram = registry.counter, registry.histogram
        self._registry = registry
        self._batches = counter(
            "slipway_batches_total", "Calls of the model: requests that Triton handed over together."
        )
        self._requests = counter("slipway_requests_total", "Requests that were answered.")
        self._rows = counter("slipway_rows_total", "Texts that were answered.")
        self._runs = counter("slipway_runs_total", "Calls of the inference engine.")
        self._windows = counter("slipway_windows_total", "Windows that texts were cut into, one for each short text.")
        self._truncations = counter("slipway_truncated_rows_total", "Texts whose end was left out.")
        about = "Tokens that were run: of texts, and those that only fill up rows."
        self._tokens = counter("slipway_tokens_total", about, kind="text")
        self._padding = counter("slipway_tokens_total", about, kind="padding")
        about = "Texts of callers by the label that they were given."
        self._predictions = {label: counter("slipway_predictions_total", about, label=label) for label in labels}
        about = "Requests that got no answer, by reason."
        self._refused = {reason: counter("slipway_refused_total", about, reason=reason) for reason in get_args(Refusal)}
        self._confidence = histogram(
            "slipway_confidence", "Probability of the label that a caller's text was given.", SHARES
        )
        self._queue = histogram(
            "slipway_queue_seconds", "From the arrival at the front door to the start of the model's call.", SECONDS
        )
        self._tokenize = histogram("slipway_tokenize_seconds", "Tokenization, for each call of the model.", SECONDS)
        self._compute = histogram("slipway_compute_seconds", "Inference, for each call of the model.", SECONDS)
        self._execute = histogram("slipway_execute_seconds", "The whole of each call of the model.", SECONDS)
        self._flusher = _Periodically(registry.flush, interval_s)

    def executed(self, batch: Executed) -> None:
        """Sum up; no message to anybody."""
        changes: list[tuple[int, float]] = [
            (self._batches, 1),
            (self._requests, len(batch.answered)),
            (self._runs, batch.runs),
            (self._tokens, batch.tokens),
            (self._padding, batch.padded_tokens),
        ]
        confidence: list[float] = []
        waited = [batch.started_s - one.arrived_s for one, _ in batch.refused if one.arrived_s]
        for answered in batch.answered:
            changes.append((self._rows, len(answered.texts)))
            changes.append((self._windows, sum(answered.windows)))
            changes.append((self._truncations, sum(answered.truncated)))
            # What did not come through the front door is a health check, two a second: work, but nobody's text.
            if answered.request.arrived_s:
                changes += [(self._predictions[label], 1) for label in answered.labels if label in self._predictions]
                confidence += [min(1.0, float(score)) for score in answered.scores]
                waited.append(batch.started_s - answered.request.arrived_s)
        changes += [(self._refused[reason], 1) for _, reason in batch.refused]
        changes += self._confidence.observe(confidence)
        # The clock of the wall may be set back between arrival and start.
        changes += self._queue.observe([max(0.0, seconds) for seconds in waited])
        changes += self._execute.observe([max(0.0, batch.ended_s - batch.started_s)])
        # A step of an ensemble does one of the two, or neither; so does a call whose requests were all refused.
        if batch.tokenized_s > batch.started_s:
            changes += self._tokenize.observe([batch.tokenized_s - batch.started_s])
        if batch.computed_s > batch.tokenized_s:
            changes += self._compute.observe([batch.computed_s - batch.tokenized_s])
        self._registry.add(changes)

    def close(self) -> None:
        """Hand over the rest."""
        self._flusher.stop()


class _Periodically:
    """Calls `work` every so many seconds, and once more at the end."""

    def __init__(self, work: Callable[[], None], interval_s: float) -> None:
        self._work = work
        self._interval_s = interval_s
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="metrics")
        self._thread.start()

    def _run(self) -> None:
        while not self._stopped.wait(self._interval_s):
            self._work()
        self._work()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join(2.0)
