"""What Envoy counted about a version, over both protocols: requests, failures that are the server's fault, latencies.

Envoy's counters, because every caller's request passes there, whatever its protocol and whichever Triton answers it.
What a client did wrong (4xx, INVALID_ARGUMENT) is no evidence against a version. Over gRPC the status is in the
trailers, so Envoy's own count by HTTP status sees only 200s; the `grpc_stats` filter counts those by status. It doesn't
see copies for a shadow: of those, failures over gRPC show only in what both versions are asked beside the traffic.
"""

import re
from dataclasses import dataclass

from serving.rollout.judgement import Bucket, Window
from serving.server.envoy_admin import EnvoyAdmin
from serving.server.front import clusters_of
from serving.server.versions import ServedVersion

_SERVER_FAULTS = frozenset({"2", "4", "13", "14", "15"})
"""gRPC: UNKNOWN, DEADLINE_EXCEEDED, INTERNAL, UNAVAILABLE, DATA_LOSS."""
_BY_STATUS = re.compile(r"upstream_rq_[1-5]xx$")
_BY_GRPC_STATUS = re.compile(r"\.grpc\..+\.([0-9]+)$")


@dataclass(frozen=True)
class Count:
    """What was counted about a version since Envoy's start."""

    requests: int
    errors: int
    latencies: dict[tuple[float, float], int]
    """(lower bound, width) → count; milliseconds."""

    def since(self, before: "Count") -> Window:
        """What happened after `before`; all of it if Envoy was started again since, and counts from 0."""
        if self.requests < before.requests:
            return self.since(Count(0, 0, {}))
        buckets: list[Bucket] = []
        for (low, width), count in sorted(self.latencies.items()):
            new = count - before.latencies.get((low, width), 0)
            if new > 0:
                buckets.append((low, width, new))
        return Window(self.requests - before.requests, max(0, self.errors - before.errors), tuple(buckets))


def count(admin: EnvoyAdmin, served: ServedVersion) -> Count:
    """Ask Envoy; raises one of `serving.server.envoy_admin.SILENT` if it doesn't answer."""
    requests = errors = 0
    latencies: dict[tuple[float, float], int] = {}
    for cluster in clusters_of(served):
        found = admin.counters(rf"^cluster\.{cluster}\.(upstream_rq_[1-5]xx$|grpc\.)")
        requests += sum(value for name, value in found.items() if _BY_STATUS.search(name))
        by_http = sum(value for name, value in found.items() if name.endswith("upstream_rq_5xx"))
        by_grpc = sum(
            value
            for name, value in found.items()
            if (status := _BY_GRPC_STATUS.search(name)) and status[1] in _SERVER_FAULTS
        )
        # What Envoy itself refuses over gRPC is in both.
        errors += max(by_http, by_grpc)
        for buckets in admin.histograms(rf"^cluster\.{cluster}\.upstream_rq_time$").values():
            for low, width, number in buckets:
                latencies[low, width] = latencies.get((low, width), 0) + number
    return Count(requests, errors, latencies)


def in_flight(admin: EnvoyAdmin, served: ServedVersion) -> int:
    """Requests that `served` has to answer yet, copies included."""
    names = "|".join(clusters_of(served))
    return sum(admin.counters(rf"^cluster\.({names})\.upstream_rq_(active|pending_active)$").values())
