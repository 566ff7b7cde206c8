"""Growth on paper: what a rate takes up to a million requests/s, and which documented limit it meets first.

The limits are of things around the replicas, which a simulation of queues doesn't see. Each names its source; where a
cluster has other ones, the thresholds are fields.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from autoscaling.hpa import SYNC_PERIOD_S, ScalingRules


@dataclass(frozen=True)
class Surroundings:
    """What the replicas stand in."""

    replicas_per_node: int = 1
    series_per_replica: int = 400
    """Time series that a scrape of one replica gives."""
    scrape_s: float = 15.0
    request_bytes: int = 1500
    """Request and answer on the wire, headers included."""
    image_bytes: float = 1.5e9
    gateway_rate_per_core: float = 5000.0
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
    nodes: int
    gateway_cores: int
    samples_per_s: float
    bytes_per_s: float
    pull_bytes: float
    """If every node pulls the image once."""
    minutes_to_grow: float
    """For the autoscaler's policies to get here from its least replicas, with pods that start at once."""
    beyond: Sequence[str]
    """Limits that are passed."""


def sizes(
    rates: Sequence[float],
    capacity: float,
    *,
    headroom: float,
    least: int,
    rules: ScalingRules,
    around: Surroundings,
) -> list[Size]:
    """For each of `rates`; `headroom` is the share of its `capacity` that a replica is kept at."""
    found = []
    for rate in rates:
        replicas = max(least, math.ceil(rate / (capacity * headroom)))
        nodes = math.ceil(replicas / around.replicas_per_node)
        samples = replicas * around.series_per_replica / around.scrape_s
        amounts = {
            "pods": replicas,
            "nodes": nodes,
            "endpoints": replicas,
            "samples": samples,
            "bandwidth": rate * around.request_bytes,
        }
        found.append(
            Size(
                rate=rate,
                replicas=replicas,
                nodes=nodes,
                gateway_cores=math.ceil(rate / around.gateway_rate_per_core),
                samples_per_s=samples,
                bytes_per_s=rate * around.request_bytes,
                pull_bytes=nodes * around.image_bytes,
                minutes_to_grow=_growth_s(max(1, least), replicas, rules) / 60,
                beyond=[LIMITS[name].name for name, amount in amounts.items() if amount > LIMITS[name].most],
            )
        )
    return found


def _growth_s(start: int, end: int, rules: ScalingRules) -> float:
    """Time that the policies for scaling up take from `start` to `end` replicas, all of them wanted at once."""
    from autoscaling.hpa import DEFAULT_DOWN, Autoscaler, Behavior, ExternalAverage, Pod

    autoscaler = Autoscaler(1, max(start, end), Behavior(rules, DEFAULT_DOWN))
    now_s, current = 0.0, start
    while current < end and now_s < 86_400:
        # The controller reads only how many there are.
        pods = [Pod("p", running=True, ready=True)] * current
        current = autoscaler.reconcile(now_s, current, pods, [ExternalAverage(1000 * end, 1000)])
        now_s += SYNC_PERIOD_S
    return now_s if current >= end else math.inf
