"""Where the buckets of the latency that callers see end, so that a metric can say how many answers were in time.

Envoy's own bounds for Prometheus (…, 50, 100, 250, …) miss most objectives, and between two bounds a share can only be
guessed. So the objective is a bound. Those around it are closer than Envoy's, as a model answers in milliseconds; what
takes longer than a minute is in one bucket. Each bound costs a series; only this histogram has them.
"""

from serving.frontdoor.door import FrontDoor
from serving.protocol import Json

BOUNDS_MS = (0.5, 1, 2.5, 5, 7.5, 10, 15, 25, 50, 75, 100, 150, 250, 500, 1000, 2500, 5000, 10_000, 30_000, 60_000)


def latency_buckets(door: FrontDoor, listener: str) -> Json:
    """The `stats_config` with the bounds of `http.LISTENER.downstream_rq_time`, in ms."""
    objective = [] if door.limits.slo_ms is None else [door.limits.slo_ms]
    return {
        "histogram_bucket_settings": [
            {
                "match": {"exact": f"http.{listener}.downstream_rq_time"},
                "buckets": sorted({float(bound) for bound in (*BOUNDS_MS, *objective)}),
            }
        ]
    }
