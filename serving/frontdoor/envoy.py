"""Envoy's bootstrap configuration: one listener for HTTP/1.1, HTTP/2 and gRPC, and the order of its filters.

A request passes, each a module of this package:

    health      the health paths end here                                     health.py
    tokens      a bearer token is verified, if tokens are taken                admission.py
    admission   credentials and scope, 401 and 403; the deadline               admission.lua
    rate        429                                                            limits.py
    buffer      the body has arrived whole, or 408, 413                        limits.py
    guard       the body is what Triton's parser survives, or 400, 415         request_guard.lua
    overload    503 when too many requests are in flight                       overload.py
    router      to a backend by its weight, or 404, 405, 504                   routes.py, clusters.py

So what is cheap to refuse is refused first, and a request counts as in flight only when all of it is there.

The listener and these filters stay as they are while Envoy runs; what they decide by is in files that it watches
(`dynamic`). Callers are told apart from proxies by nothing: every header that Envoy takes orders from is removed, as
the door faces callers itself.
"""

from pathlib import Path

from serving.frontdoor import admission, health, overload
from serving.frontdoor.access_log import access_log
from serving.frontdoor.admission import admission_filter, lua
from serving.frontdoor.buckets import latency_buckets
from serving.frontdoor.door import FrontDoor
from serving.frontdoor.limits import body_filter, own_limits, protocol_limits, rate_filter
from serving.frontdoor.replies import local_replies
from serving.frontdoor.routes import GUARD, ROUTES
from serving.frontdoor.tls import transport_socket
from serving.frontdoor.xds import extension, typed, watched, watched_filter
from serving.observability.tracing import collector_clusters, tracing
from serving.protocol import Json

LISTENER = "front"


def bootstrap(door: FrontDoor, directory: Path) -> Json:
    """The configuration that Envoy is started with; what may change is in files of `directory`."""
    return {
        "node": {"id": "front-door", "cluster": "slipway"},
        "admin": {"address": {"pipe": {"path": str(door.admin_socket), "mode": 0o600}}},
        # The patterns of a route grow with the model's name; at 100 steps, the default, one of 60 letters is refused.
        "layered_runtime": {"layers": [{"name": "fixed", "static_layer": {"re2.max_program_size.error_level": 1000}}]},
        # Histograms are merged when they are asked for, and not every five seconds only.
        "stats_flush_on_admin": True,
        "stats_config": latency_buckets(door, LISTENER),
        "overload_manager": own_limits(door),
        "dynamic_resources": {"cds_config": watched(directory / "clusters.json")},
        "static_resources": {"listeners": _listeners(door, directory), "clusters": collector_clusters(door.collector)},
    }


def _listeners(door: FrontDoor, directory: Path) -> list[Json]:
    watching = [] if door.health_socket is None else [_health_listener(door.health_socket, directory)]
    return [_listener(door, directory), *watching]


def _health_listener(socket: Path, directory: Path) -> Json:
    """The health paths alone, without TLS: a probe can't show a certificate, and its requests are nobody's traffic."""
    manager = typed(
        "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix="health",
        http_filters=[
            watched_filter(health.FILTER, health.FILTER_TYPE, directory / "health.json"),
            extension("router", "extensions.filters.http.router.v3.Router"),
        ],
        route_config={"name": "health"},
    )
    return {
        "name": "health",
        "address": {"pipe": {"path": str(socket), "mode": 0o600}},
        "filter_chains": [
            {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
        ],
    }


def _listener(door: FrontDoor, directory: Path) -> Json:
    manager = typed(
        "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix=LISTENER,
        codec_type="AUTO",
        server_name="slipway",
        use_remote_address=True,
        # Nobody is internal: what `x-envoy-…` headers order is for Envoy itself to say.
        internal_address_config={"cidr_ranges": [{"address_prefix": "255.255.255.255", "prefix_len": 32}]},
        normalize_path=True,
        always_set_request_id_in_response=True,
        **protocol_limits(door),
        **tracing(door.collector),
        http_filters=_filters(door, directory),
        rds={"route_config_name": ROUTES, "config_source": watched(directory / "routes.json")},
        local_reply_config=local_replies(door),
        access_log=[access_log(door)],
    )
    chain: Json = {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
    if door.tls is not None:
        chain["transport_socket"] = transport_socket(door.tls, directory)
    return {
        "name": LISTENER,
        "address": {"socket_address": {"address": door.host, "port_value": door.port}},
        # With SO_REUSEPORT a second server could bind the same port and silently take half of the requests.
        "enable_reuse_port": False,
        "per_connection_buffer_limit_bytes": max(door.max_body_bytes, 1 << 20),
        "filter_chains": [chain],
    }


def _filters(door: FrontDoor, directory: Path) -> list[Json]:
    tokens = [(admission.TOKENS, admission.TOKENS_TYPE)] if door.auth is not None and door.auth.jwks is not None else []
    return [
        watched_filter(health.FILTER, health.FILTER_TYPE, directory / "health.json"),
        *(watched_filter(name, kind, directory / f"{name}.json") for name, kind in tokens),
        admission_filter(),
        *rate_filter(door),
        body_filter(door),
        extension(
            GUARD, "extensions.filters.http.lua.v3.Lua", default_source_code={"inline_string": lua("request_guard.lua")}
        ),
        watched_filter(overload.FILTER, overload.FILTER_TYPE, directory / "overload.json"),
        # Over gRPC a failure is a 200 with a status in the trailers; this counts those for each backend.
        extension("grpc_stats", "extensions.filters.http.grpc_stats.v3.FilterConfig", stats_for_all_methods=True),
        extension("router", "extensions.filters.http.router.v3.Router"),
    ]
