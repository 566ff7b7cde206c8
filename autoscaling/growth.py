"""Growth on paper: what a rate takes up to a million requests/s, and which documented limit it meets first.

The limits are of things around the replicas, which a simulation of queues doesn't see; each names its source. A node is
taken to hold one replica, as a replica with a GPU does.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from autoscaling.hpa import DEFAULT_DOWN, SYNC_PERIOD_S, Autoscaler, Behavior, ScalingRules
from autoscaling.recommendation import ExternalAverage, Pod

_SERIES_PER_REPLICA = 400
"""Time series that a scrape of one replica gives."""
_SCRAPE_S = 15.0
_REQUEST_BYTES = 1500
"""Request and answer on the wire, headers included."""
_GATEWAY_RATE_PER_CORE = 5000.0
"""Requests/s of a gateway with TLS on one core; Envoy with small bodies and logs on."""


@dataclass(frozen=True)
class Limit:
    """Something that ends somewhere."""

    name: str
    most: float
    unit: str
    source: str


LIMITS = {
    "pods": Limit("pods of a cluster", 150_000, "pods", "kubernetes.io/docs/setup/best-practices/cluster-large"),
    "nodes": Limit("nodes of a cluster", 5_000, "nodes", "kubernetes.io/docs/setup/best-practices/cluster-large"),
    "endpoints": Limit(
        "an Endpoints object (EndpointSlices go on)",
        1_000,
        "pods",
        "kubernetes.io/docs/concepts/services-networking/service/#over-capacity-endpoints",
    ),
    "samples": Limit(
        "samples/s of one Prometheus of moderate size", 500_000, "samples/s", "a rule of thumb; measure yours"
    ),
    "bandwidth": Limit("10 Gb/s at the gateway", 10e9 / 8, "bytes/s", "the network card"),
}


@dataclass(frozen=True)
class Size:
    """What a rate takes."""

    rate: float
    replicas: int
    gateway_cores: int
    samples_per_s: float
    bytes_per_s: float
    minutes_to_grow: float
    """For the autoscaler's policies to get here from its least replicas, with pods that start at once."""
    beyond: Sequence[str]
    """Limits that are passed."""


def sizes(rates: Sequence[float], capacity: float, *, headroom: float, least: int, rules: ScalingRules) -> list[Size]:
    """For each of `rates`; `headroom` is the share of its `capacity`, requests/s, that a replica is kept at."""
    found = []
    for rate in rates:
        replicas = max(least, math.ceil(rate / (capacity * headroom)))
        samples = replicas * _SERIES_PER_REPLICA / _SCRAPE_S
        bandwidth = rate * _REQUEST_BYTES
        amounts = {
            "pods": replicas,
            "nodes": replicas,
            "endpoints": replicas,
            "samples": samples,
            "bandwidth": bandwidth,
        }
        found.append(
            Size(
                rate=rate,
                replicas=replicas,
                gateway_cores=math.ceil(rate / _GATEWAY_RATE_PER_CORE),
                samples_per_s=samples,
                bytes_per_s=bandwidth,
                minutes_to_grow=_growth_s(max(1, least), replicas, rules) / 60,
                beyond=[LIMITS[name].name for name, amount in amounts.items() if amount > LIMITS[name].most],
            )
        )
    return found


def _growth_s(start: int, end: int, rules: ScalingRules) -> float:
    """Time that the policies for scaling up take from `start` to `end` replicas, all of them wanted at once."""
    autoscaler = Autoscaler(1, max(start, end), Behavior(rules, DEFAULT_DOWN))
    now_s, current = 0.0, start
    while current < end and now_s < 86_400:
        # The controller reads only how many there are.
        pods = [Pod("p", running=True, ready=True)] * current
        current = autoscaler.reconcile(now_s, current, pods, [ExternalAverage(1000 * end, 1000)])
        now_s += SYNC_PERIOD_S
    return now_s if current >= end else math.inf
