"""Two clusters for each Triton: its HTTP port and its gRPC port, both as healthy as a real inference.

Envoy posts the bundle's first check to every Triton once a second for each protocol; when that fails, both clusters
(the gRPC one is checked through the HTTP port, too) have no healthy host, and callers get 503 / UNAVAILABLE at once
instead of Triton's stale "ready". The price: two inferences a second, and no verdict from a check that waits in the
queue of an overloaded server; its timeout is therefore as long as a request's, so that load alone never fails it.

The checks go from Envoy straight to Triton, so neither credentials nor limits are in their way.
"""

import base64
import json

from serving.frontdoor.door import Backend, FrontDoor
from serving.frontdoor.overload import most_in_flight
from serving.frontdoor.xds import seconds, typed
from serving.observability.tracing import upstream_filters
from serving.protocol import Json, inference_body

_CHECK_INTERVAL_S = 1.0
_CHECK_INTERVAL_DOWN_S = 0.1
_PROTOCOLS: dict[str, Json] = {"http": {"http_protocol_options": {}}, "grpc": {"http2_protocol_options": {}}}


def cluster_name(backend: Backend, protocol: str) -> str:
    """What routes call the `protocol` ("http" or "grpc") port of `backend`."""
    return f"{backend.name}_{protocol}"


def clusters(door: FrontDoor) -> list[Json]:
    """The clusters of all backends."""
    return [_cluster(door, backend, protocol) for backend in door.backends for protocol in _PROTOCOLS]


def _cluster(door: FrontDoor, backend: Backend, protocol: str) -> Json:
    name = cluster_name(backend, protocol)
    port = backend.http_port if protocol == "http" else backend.grpc_port
    # A second line only: `serving.frontdoor.overload` bounds both protocols together, copies for a shadow aside.
    thresholds = dict.fromkeys(("max_connections", "max_pending_requests", "max_requests"), most_in_flight(door))
    endpoint = {
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "health_check_config": {"port_value": backend.http_port},
    }
    return typed(
        "config.cluster.v3.Cluster",
        name=name,
        type="STATIC",
        connect_timeout="1s",
        metadata={"filter_metadata": {"slipway": {"backend": backend.name, "version": backend.version}}},
        circuit_breakers={"thresholds": [thresholds]},
        # Below this share of healthy hosts Envoy would send requests to the sick ones as well; never do.
        common_lb_config={"healthy_panic_threshold": {"value": 0}},
        health_checks=[_health_check(door)],
        typed_extension_protocol_options={
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": typed(
                "extensions.upstreams.http.v3.HttpProtocolOptions",
                explicit_http_config=_PROTOCOLS[protocol],
                **upstream_filters(door.collector),
            )
        },
        load_assignment={"cluster_name": name, "endpoints": [{"lb_endpoints": [{"endpoint": endpoint}]}]},
    )


def _health_check(door: FrontDoor) -> Json:
    body = json.dumps(inference_body(door.health_text), ensure_ascii=False).encode()
    return {
        "timeout": seconds(door.timeout_s),
        "interval": seconds(_CHECK_INTERVAL_S),
        "no_traffic_interval": seconds(_CHECK_INTERVAL_S),
        "unhealthy_interval": seconds(_CHECK_INTERVAL_DOWN_S),
        "unhealthy_threshold": 2,
        "healthy_threshold": 1,
        "http_health_check": {
            "host": "127.0.0.1",
            "path": f"/v2/models/{door.model}/infer",
            "method": "POST",
            "codec_client_type": "HTTP1",
            "send": {"binary": base64.b64encode(body).decode()},
            "request_headers_to_add": [{"header": {"key": "content-type", "value": "application/json"}}],
        },
    }
