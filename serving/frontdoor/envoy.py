"""The front door: Envoy's configuration as a pure function of what it stands in front of.

One listener serves HTTP/1.1, HTTP/2 and gRPC. Only what a caller needs has a route: inference, metadata and
health of the one model. Triton's repository, shared-memory, logging, trace and statistics calls have none, so
they don't exist from outside.

Health is a real inference. Envoy posts the bundle's first check to Triton every second for each protocol;
when that fails, both clusters (the gRPC one is checked through the HTTP port, too) have no healthy host, and
callers get 503 / UNAVAILABLE at once instead of Triton's stale "ready". `/healthz` and Triton's own health
paths say the same; `live` is no weaker than `ready`, because Triton never revives a dead model process and
only whoever polls liveness can. The price: two inferences a second, and no verdict from a check that waits in
the queue of an overloaded server; its timeout is therefore as long as a request's, so that load alone never
fails it.

Refusals are JSON `{"error": "…"}`, each with its reason; on gRPC the reason is the status message. A request
body is held to its limit by the buffer filter and looked at by `request_guard.lua` before Triton parses it.
The access log holds neither bodies nor query strings.

Requests in flight are bounded here (503 beyond), as Triton has a queue limit only with its batcher. The bound
is a number of requests, not adaptive concurrency: that one learns its limit from latency, and on a small
shared machine latency says more about the neighbours than about the load.
"""

import base64
import json
import re
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path

from serving.observability.tracing import collector_clusters, tracing, upstream_filters
from serving.protocol import Json, inference_body
from slipway.recipe import Observe

LISTENER = "front"
HEALTH_PATHS = ("/healthz", "/v2/health/live", "/v2/health/ready")

_GRPC_METHODS = (
    "/inference.GRPCInferenceService/ModelInfer",
    "/inference.GRPCInferenceService/ModelMetadata",
    "/inference.GRPCInferenceService/ModelReady",
    "/inference.GRPCInferenceService/ServerLive",
    "/inference.GRPCInferenceService/ServerMetadata",
    "/inference.GRPCInferenceService/ServerReady",
    "/grpc.health.v1.Health/Check",
)
_GUARD = "envoy.filters.http.lua"
_HTTP_CLUSTER, _GRPC_CLUSTER = "triton_http", "triton_grpc"
_TYPE = "type.googleapis.com/envoy."
_IS_GRPC = {"header_filter": {"header": {"name": "content-type", "string_match": {"prefix": "application/grpc"}}}}
_CHECK_INTERVAL_S = 1.0
_CHECK_INTERVAL_DOWN_S = 0.1
_READ_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class FrontDoor:
    """What Envoy stands in front of, and its limits."""

    model: str
    host: str
    port: int
    """0 takes a free one; Envoy's admin socket tells which."""
    http_port: int
    """Triton's, on loopback."""
    grpc_port: int
    health_text: str
    """A text that the model can classify."""
    max_body_bytes: int
    max_connections: int
    max_in_flight: int
    """Requests for each protocol that may wait or run."""
    timeout_s: float
    admin_socket: Path
    access_log: Path
    observe: Observe = field(default_factory=Observe)


def envoy_config(door: FrontDoor) -> Json:
    """Envoy's bootstrap configuration for `door`."""
    return {
        "admin": {"address": {"pipe": {"path": str(door.admin_socket), "mode": 0o600}}},
        # The patterns of a route grow with the model's name; at 100 steps, the default, one of 60 letters is refused.
        "layered_runtime": {"layers": [{"name": "fixed", "static_layer": {"re2.max_program_size.error_level": 1000}}]},
        "overload_manager": {
            "resource_monitors": [
                {
                    "name": "envoy.resource_monitors.global_downstream_max_connections",
                    "typed_config": {
                        "@type": f"{_TYPE}extensions.resource_monitors"
                        ".downstream_connections.v3.DownstreamConnectionsConfig",
                        "max_active_downstream_connections": door.max_connections,
                    },
                }
            ]
        },
        "static_resources": {
            "listeners": [_listener(door)],
            "clusters": [
                _cluster(door, _HTTP_CLUSTER, door.http_port, {"http_protocol_options": {}}),
                _cluster(door, _GRPC_CLUSTER, door.grpc_port, {"http2_protocol_options": {}}),
                *collector_clusters(door.observe),
            ],
        },
    }


def _listener(door: FrontDoor) -> Json:
    manager = {
        "@type": _TYPE + "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": LISTENER,
        "codec_type": "AUTO",
        "server_name": "slipway",
        "use_remote_address": True,
        "normalize_path": True,
        "request_headers_timeout": _seconds(_READ_TIMEOUT_S),
        "request_timeout": _seconds(_READ_TIMEOUT_S),
        "common_http_protocol_options": {"idle_timeout": "300s"},
        "http2_protocol_options": {"max_concurrent_streams": 1024},
        "http_filters": [*_health_filters(), _buffer(door), _guard(), _router()],
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": _routes(door)}]},
        "local_reply_config": _local_replies(door),
        "access_log": [_access_log(door.access_log)],
        **tracing(door.observe),
    }
    return {
        "name": LISTENER,
        "address": {"socket_address": {"address": door.host, "port_value": door.port}},
        # With SO_REUSEPORT a second server could bind the same port and silently take half of the requests.
        "enable_reuse_port": False,
        "per_connection_buffer_limit_bytes": max(door.max_body_bytes, 1 << 20),
        "filter_chains": [
            {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
        ],
    }


def _routes(door: FrontDoor) -> list[Json]:
    model = f"/v2/models/{re.escape(door.model)}(/versions/[0-9]+)?"
    infer, metadata = f"{model}/infer", f"{model}(/ready)?"
    http = {"cluster": _HTTP_CLUSTER, "timeout": _seconds(door.timeout_s)}
    grpc = {"cluster": _GRPC_CLUSTER, "timeout": _seconds(door.timeout_s)}
    get = _method("GET", "HEAD")
    return [
        *({"match": {"path": path, "grpc": {}}, "route": grpc} for path in _GRPC_METHODS),
        _reply(
            {"prefix": "/", "grpc": {}},
            404,
            "this method is not served here; inference, metadata and health are",
        ),
        {"match": {"safe_regex": {"regex": infer}, "headers": _method("POST")}, "route": http},
        _reply({"safe_regex": {"regex": infer}}, 405, "use POST"),
        {"match": {"safe_regex": {"regex": metadata}, "headers": get}, "route": http},
        {"match": {"path": "/v2", "headers": get}, "route": http},
        _reply(
            {"prefix": "/"},
            404,
            f"nothing is served at this path; POST texts to /v2/models/{door.model}/infer",
        ),
    ]


def _method(*names: str) -> list[Json]:
    pattern = {"safe_regex": {"regex": "|".join(names)}}
    return [{"name": ":method", "string_match": pattern}]


def _reply(match: Json, status: int, reason: str) -> Json:
    """A route that ends here; whatever is sent to it is not worth guarding."""
    off = {"@type": _TYPE + "extensions.filters.http.lua.v3.LuaPerRoute", "disabled": True}
    return {
        "match": match,
        "direct_response": {"status": status, "body": {"inline_string": reason}},
        "typed_per_filter_config": {_GUARD: off},
    }


def _health_filters() -> list[Json]:
    """Answer the health paths from the health of the HTTP cluster, without asking Triton."""
    clusters = {name: {"value": 100} for name in (_HTTP_CLUSTER, _GRPC_CLUSTER)}
    return [
        {
            "name": f"health {path}",
            "typed_config": {
                "@type": _TYPE + "extensions.filters.http.health_check.v3.HealthCheck",
                "pass_through_mode": False,
                "cluster_min_healthy_percentages": clusters,
                "headers": [{"name": ":path", "string_match": {"exact": path}}],
            },
        }
        for path in HEALTH_PATHS
    ]


def _buffer(door: FrontDoor) -> Json:
    return {
        "name": "envoy.filters.http.buffer",
        "typed_config": {
            "@type": _TYPE + "extensions.filters.http.buffer.v3.Buffer",
            "max_request_bytes": door.max_body_bytes,
        },
    }


def _guard() -> Json:
    source = resources.files("serving.frontdoor").joinpath("request_guard.lua").read_text(encoding="utf-8")
    return {
        "name": _GUARD,
        "typed_config": {
            "@type": _TYPE + "extensions.filters.http.lua.v3.Lua",
            "default_source_code": {"inline_string": source},
        },
    }


def _router() -> Json:
    return {
        "name": "envoy.filters.http.router",
        "typed_config": {"@type": _TYPE + "extensions.filters.http.router.v3.Router"},
    }


def _local_replies(door: FrontDoor) -> Json:
    """What Envoy answers by itself: the reason in words, as JSON over HTTP and as the message over gRPC.

    The first mapper that matches applies, so those for gRPC come before those for any protocol.
    """
    mappers: list[Json] = [
        {"filter": _has_status(200), "body_format_override": _text('{"status":"ok"}\n', "application/json")}
    ]
    plain = _text("%LOCAL_REPLY_BODY%", "text/plain")
    for refusal in _refusals(door):
        body = {"body": {"inline_string": refusal.reason}} if refusal.reason else {}
        mappers.append(
            {
                "filter": {"and_filter": {"filters": [_IS_GRPC, _has_status(refusal.status)]}},
                "headers_to_add": [
                    {
                        "header": {"key": "grpc-status", "value": str(refusal.grpc_status)},
                        "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
                    }
                ],
                "body_format_override": plain,
                **body,
            }
        )
        mappers.append({"filter": _has_status(refusal.status), **body})
    mappers.append({"filter": _IS_GRPC, "body_format_override": plain})
    return {"mappers": mappers, "body_format": {"json_format": {"error": "%LOCAL_REPLY_BODY%"}}}


@dataclass(frozen=True)
class _Refusal:
    """An HTTP status of Envoy's own, the gRPC status that means the same, and the words (None: keep Envoy's)."""

    status: int
    grpc_status: int
    reason: str | None


def _refusals(door: FrontDoor) -> list[_Refusal]:
    # The gRPC numbers: 4 DEADLINE_EXCEEDED, 8 RESOURCE_EXHAUSTED, 12 UNIMPLEMENTED, 14 UNAVAILABLE.
    return [
        _Refusal(408, 4, f"the request did not arrive within {_READ_TIMEOUT_S:g} s"),
        _Refusal(413, 8, f"the body is larger than {door.max_body_bytes} bytes; send less at a time"),
        _Refusal(415, 12, None),
        _Refusal(431, 8, "the headers are too large"),
        _Refusal(503, 14, "the model is not available or has too many requests; try again shortly"),
        _Refusal(504, 4, f"no answer within {door.timeout_s:g} s"),
    ]


def _text(template: str, content_type: str) -> Json:
    return {"text_format_source": {"inline_string": template}, "content_type": content_type}


def _has_status(status: int) -> Json:
    # Every value needs a runtime key; none is ever set.
    value = {"default_value": status, "runtime_key": f"status_{status}"}
    return {"status_code_filter": {"comparison": {"op": "EQ", "value": value}}}


def _access_log(file: Path) -> Json:
    return {
        "name": "envoy.access_loggers.file",
        "typed_config": {
            "@type": _TYPE + "extensions.access_loggers.file.v3.FileAccessLog",
            "path": str(file),
            "log_format": {
                "json_format": {
                    "time": "%START_TIME%",
                    "method": "%REQ(:METHOD)%",
                    "path": "%PATH(NQ)%",
                    "protocol": "%PROTOCOL%",
                    "status": "%RESPONSE_CODE%",
                    "grpc_status": "%GRPC_STATUS%",
                    "flags": "%RESPONSE_FLAGS%",
                    "received_bytes": "%BYTES_RECEIVED%",
                    "sent_bytes": "%BYTES_SENT%",
                    "duration_ms": "%DURATION%",
                    "peer": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%",
                    "request_id": "%REQ(X-REQUEST-ID)%",
                }
            },
        },
    }


def _cluster(door: FrontDoor, name: str, port: int, protocol: Json) -> Json:
    limit = door.max_in_flight
    thresholds = dict.fromkeys(("max_connections", "max_pending_requests", "max_requests"), limit)
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "1s",
        "circuit_breakers": {"thresholds": [thresholds]},
        # Below this share of healthy hosts Envoy would send requests to the sick ones as well; never do.
        "common_lb_config": {"healthy_panic_threshold": {"value": 0}},
        "health_checks": [_health_check(door)],
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": _TYPE + "extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": protocol,
                **upstream_filters(door.observe),
            }
        },
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [
                {
                    "lb_endpoints": [
                        {
                            "endpoint": {
                                "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
                                "health_check_config": {"port_value": door.http_port},
                            }
                        }
                    ]
                }
            ],
        },
    }


def _health_check(door: FrontDoor) -> Json:
    body = json.dumps(inference_body(door.health_text), ensure_ascii=False).encode()
    return {
        "timeout": _seconds(door.timeout_s),
        "interval": _seconds(_CHECK_INTERVAL_S),
        "no_traffic_interval": _seconds(_CHECK_INTERVAL_S),
        "unhealthy_interval": _seconds(_CHECK_INTERVAL_DOWN_S),
        "unhealthy_threshold": 2,
        "healthy_threshold": 1,
        "http_health_check": {
            "host": "127.0.0.1",
            "path": f"/v2/models/{door.model}/infer",
            "method": "POST",
            "codec_client_type": "HTTP1",
            "send": {"binary": base64.b64encode(body).decode()},
            "request_headers_to_add": [
                {"header": {"key": "content-type", "value": "application/json"}},
            ],
        },
    }


def _seconds(value: float) -> str:
    return f"{value:.3f}s"
