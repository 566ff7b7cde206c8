"""The health paths: answered by Envoy from what its health checks found, without asking Triton.

`live` is no weaker than `ready`, because Triton never revives a dead model process and only whoever polls liveness
can. The endpoint is as healthy as the backend that most requests go to: a candidate that is ill is withdrawn by whoever
promoted it, and must not have the whole endpoint restarted.
"""

from serving.frontdoor.clusters import cluster_name
from serving.frontdoor.door import FrontDoor
from serving.frontdoor.xds import filter_resource
from serving.protocol import Json

HEALTH_PATHS = ("/healthz", "/v2/health/live", "/v2/health/ready")
FILTER, FILTER_TYPE = "health", "extensions.filters.http.health_check.v3.HealthCheck"


def health_filter(door: FrontDoor) -> Json:
    """The filter that ends requests for `HEALTH_PATHS`."""
    pattern = "|".join(HEALTH_PATHS)
    return filter_resource(
        FILTER,
        FILTER_TYPE,
        pass_through_mode=False,
        cluster_min_healthy_percentages={
            cluster_name(door.main, protocol): {"value": 100} for protocol in ("http", "grpc")
        },
        headers=[{"name": ":path", "string_match": {"safe_regex": {"regex": pattern}}}],
    )
