"""What happens to requests at a replica: one bounded first-in-first-out queue, and model instances that empty it.

Requests are simulated one by one, so waiting times have their real distribution and percentiles need no formula; but
not in a loop. The work that an arriving request finds before it follows Lindley's recursion, here with the queue's
bound: w ↦ min(B, max(s, w + s − gap)). Such functions are closed under composition, so all requests of a step are done
by a parallel prefix in log₂(n) passes over arrays (Hillis & Steele 1986). A request that doesn't fit any more is
refused; one that fits in part is refused in that proportion, which is what keeps the recursion a composition.

The instances of a replica are simulated as one server that is as fast as all of them together; to the time in the queue
comes the time that a request takes in its own instance. In overload that is exact; at 80 % load of four instances the
mean wait comes out at 5.5 ms instead of 4.1 (10 ms service, variation 0.3), on the safe side. Dealing requests to the
instances in turn would say 6.8.

Alternatives: formulas for the waiting time (Erlang C, Allen & Cunneen) hold in equilibrium only, and an autoscaler is
about what happens out of it; an event loop (SimPy) takes some 10 µs a request, this 0.3.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

_MOST_LOAD = 4.0
"""Of what saturates a replica: its queue is full all the time then, and of what comes beyond that all is refused."""


@dataclass(frozen=True)
class Service:
    """One replica, as it was measured."""

    service_ms: float
    """Mean time of a request in a model instance, without waiting."""
    instances: int = 1
    """Requests that a replica works on at a time."""
    variation: float = 0.3
    """Standard deviation of the service time over its mean."""
    overhead_ms: float = 1.0
    """Added to every answer by proxy and network."""
    max_in_flight: int = 64
    """Requests that a replica holds, waiting or running; more are refused."""

    def __post_init__(self) -> None:
        if self.service_ms <= 0 or self.instances < 1 or self.variation < 0 or self.overhead_ms < 0:
            raise ValueError(f"this is no replica: {self}")
        if self.max_in_flight < self.instances:
            raise ValueError("max_in_flight is less than what the instances of a replica work on")

    @property
    def saturation_rate(self) -> float:
        """Requests/s at which every instance is busy all the time."""
        return 1000.0 * self.instances / self.service_ms


@dataclass(frozen=True)
class Step:
    """What happened to the requests of one step, by replica; refused ones are fractions of requests."""

    offered: FloatArray
    """`[replicas]`"""
    refused: FloatArray
    """`[replicas]`"""
    wait_s: FloatArray
    """`[replicas]`, summed over the requests that were taken."""
    busy_s: FloatArray
    """`[replicas]`, seconds that instances will have worked for the requests that were taken."""
    latencies_s: FloatArray
    """`[requests]`, of all replicas, waiting and service and overhead."""
    weights: FloatArray
    """`[requests]`, the share of each that was taken."""


class Replicas:
    """Queues of several replicas side by side."""

    def __init__(self, service: Service, rng: np.random.Generator) -> None:
        self._service = service
        self._rng = rng
        self._work_s = np.zeros(0)

    def __len__(self) -> int:
        return len(self._work_s)

    def resize(self, count: int) -> None:
        """Add empty replicas or take the last ones away, whose requests are still answered."""
        kept = self._work_s[:count]
        self._work_s = np.concatenate([kept, np.zeros(count - len(kept))])

    def step(self, rate: float, seconds: float) -> Step:
        """`seconds` under `rate` requests/s, spread over the replicas at random."""
        service = self._service
        count = len(self)
        each = max(1.0, rate / count / (_MOST_LOAD * service.saturation_rate))
        offered = self._rng.poisson(rate / each * seconds / count, count)
        most = max(int(offered.max()), 1)
        real = np.arange(most) < offered[:, None]
        # Arrivals are sorted uniform times; what is beyond a replica's count does no work, at the end of the step.
        times = np.sort(np.where(real, self._rng.uniform(0, seconds, (count, most)), seconds), axis=1)
        own_s = self._service_times((count, most))
        work = np.where(real, own_s / service.instances, 0.0)
        bound_s = service.max_in_flight * service.service_ms / 1e3 / service.instances
        before, refused = _waits(self._work_s, times, work, bound_s)
        taken = np.where(real, 1.0 - refused, 0.0)
        after = np.minimum(bound_s, before[:, -1] + work[:, -1])
        self._work_s = np.maximum(0.0, after - (seconds - times[:, -1]))
        return Step(
            offered=offered * each,
            refused=offered * each - taken.sum(axis=1),
            wait_s=(before * taken).sum(axis=1),
            busy_s=(own_s * taken).sum(axis=1),
            latencies_s=(before + own_s)[real] + service.overhead_ms / 1e3,
            weights=taken[real],
        )

    def _service_times(self, shape: tuple[int, int]) -> FloatArray:
        mean, variation = self._service.service_ms / 1e3, self._service.variation
        if variation == 0:
            return np.full(shape, mean)
        order = 1.0 / variation**2
        return self._rng.gamma(order, mean / order, shape)


def _waits(start: FloatArray, times: FloatArray, work: FloatArray, bound_s: float) -> tuple[FloatArray, FloatArray]:
    """Work that each request finds before it, seconds, and the share of it that is refused; both like `work`."""
    gaps = np.diff(times, axis=-1, prepend=0.0)
    shift, low, high = work - gaps, work.copy(), np.full_like(work, bound_s)
    # A request longer than the bound is refused in part even at an idle server.
    low = np.minimum(low, bound_s)
    span = 1
    while span < work.shape[-1]:
        earlier = slice(None, -span)
        later = slice(span, None)
        a1, l1, h1 = shift[..., earlier], low[..., earlier], high[..., earlier]
        a2, l2, h2 = shift[..., later], low[..., later], high[..., later]
        composed = a1 + a2, np.maximum(l1 + a2, l2), np.minimum(h2, np.maximum(h1 + a2, l2))
        shift, low, high = (
            np.concatenate([old[..., :span], new], axis=-1)
            for old, new in zip((shift, low, high), composed, strict=True)
        )
        span *= 2
    after = np.minimum(high, np.maximum(low, start[..., None] + shift))
    previous = np.concatenate([start[..., None], after[..., :-1]], axis=-1)
    before = np.maximum(0.0, previous - gaps)
    beyond = np.maximum(0.0, before + work - bound_s)
    refused = np.divide(beyond, work, out=np.zeros_like(work), where=work > 0)
    return before, np.minimum(refused, 1.0)
