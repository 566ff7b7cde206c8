"""Traces: spans of Envoy's own to an OpenTelemetry collector, if there is one.

Without a collector nothing is traced, and a caller's `traceparent` is passed on as it is. A span has the route, the
request's id, the status and the times, and what Envoy always adds (method, host, peer); its URL is without the query.
"""

from serving.frontdoor.door import FrontDoor, Otlp
from serving.frontdoor.xds import extension, typed
from serving.protocol import Json

_CLUSTER = "otlp"


def tracing(door: FrontDoor) -> Json:
    """The connection manager's part."""
    if door.otlp is None:
        return {}
    provider = extension(
        "envoy.tracers.opentelemetry",
        "config.trace.v3.OpenTelemetryConfig",
        grpc_service={"envoy_grpc": {"cluster_name": _CLUSTER}, "timeout": "1s"},
        service_name="slipway-front-door",
    )
    return {"tracing": {"random_sampling": {"value": door.otlp.sample_percent}, "provider": provider}}


def collector(door: FrontDoor) -> list[Json]:
    """The cluster that spans are sent to."""
    return [] if door.otlp is None else [_cluster(door.otlp)]


def _cluster(otlp: Otlp) -> Json:
    address = {"socket_address": {"address": otlp.host, "port_value": otlp.port}}
    return {
        "name": _CLUSTER,
        "type": "STRICT_DNS",
        "connect_timeout": "1s",
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": typed(
                "extensions.upstreams.http.v3.HttpProtocolOptions",
                explicit_http_config={"http2_protocol_options": {}},
            )
        },
        "load_assignment": {
            "cluster_name": _CLUSTER,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
        },
    }
