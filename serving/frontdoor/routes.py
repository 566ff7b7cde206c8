"""What has a route: inference, metadata and health of the one model, and for those who may, its configuration and
statistics.

Triton's repository, shared-memory, logging and trace calls have none, so they don't exist from outside, whatever the
credentials. Each route says which scope it takes; without credentials configured there is no `admin`, and its routes
are not there either. Requests are split over the backends by their weights, HTTP and gRPC alike.
"""

import json
import re

from serving.frontdoor.admission import ADMISSION, admission_settings
from serving.frontdoor.clusters import cluster_name
from serving.frontdoor.credentials import Key
from serving.frontdoor.door import FrontDoor
from serving.frontdoor.openapi import OPENAPI_PATH, openapi
from serving.frontdoor.replies import security_headers
from serving.frontdoor.xds import seconds, typed
from serving.protocol import Json
from slipway.errors import ServingError

ROUTES = "slipway"
GUARD = "request guard"

_LUA = "extensions.filters.http.lua.v3.LuaPerRoute"
_SERVICE = "/inference.GRPCInferenceService/"
_GRPC_SCOPES = {
    f"{_SERVICE}ModelInfer": "predict",
    f"{_SERVICE}ModelMetadata": "predict",
    f"{_SERVICE}ModelReady": "predict",
    f"{_SERVICE}ServerMetadata": "predict",
    f"{_SERVICE}ServerLive": "public",
    f"{_SERVICE}ServerReady": "public",
    "/grpc.health.v1.Health/Check": "public",
}
_GRPC_ADMIN = (f"{_SERVICE}ModelConfig", f"{_SERVICE}ModelStatistics")
_NEVER_SENT = {"retry_on": "connect-failure,refused-stream,reset-before-request", "num_retries": 2}
"""Failures that Triton saw nothing of: a connection that it closed while a request was on its way to it."""


def routes(door: FrontDoor, keys: tuple[Key, ...]) -> Json:
    """The route table with everything that it decides by: scopes, keys, weights.

    Raises `ServingError` if no backend has a weight.
    """
    if not any(backend.weight for backend in door.backends):
        raise ServingError("no backend has a weight, so nothing would be answered; give one a weight above 0.")
    return typed(
        "config.route.v3.RouteConfiguration",
        name=ROUTES,
        virtual_hosts=[
            {
                "name": "all",
                "domains": ["*"],
                "routes": _table(door),
                "response_headers_to_add": security_headers(door),
                "response_headers_to_remove": ["x-envoy-upstream-service-time", "x-envoy-attempt-count"],
                "typed_per_filter_config": {
                    ADMISSION: typed(_LUA, filter_context=admission_settings(door, keys)),
                },
            }
        ],
        max_direct_response_body_size_bytes=1 << 20,
    )


def _table(door: FrontDoor) -> list[Json]:
    base = f"/v2/models/{re.escape(door.model)}"
    model = f"{base}(/versions/[0-9]+)?"
    infer = f"{model}/(infer|generate)"
    get = _method("GET")
    table = [_grpc(door, path, scope) for path, scope in _GRPC_SCOPES.items()]
    if door.auth is not None:
        table += [_grpc(door, path, "admin") for path in _GRPC_ADMIN]
    table += [
        _reply(
            "unknown method",
            {"prefix": "/", "grpc": {}},
            404,
            "this method is not served here; inference, metadata and health are",
        ),
        _http(door, "infer", {"safe_regex": {"regex": f"{model}/infer"}, "headers": _method("POST")}),
        _http(door, "generate", {"safe_regex": {"regex": f"{model}/generate"}, "headers": _method("POST")}),
        _reply("wrong method", {"safe_regex": {"regex": infer}}, 405, "use POST", allow="POST"),
        _http(door, "metadata", {"safe_regex": {"regex": f"{model}(/ready)?"}, "headers": get}),
        _http(door, "server", {"path": "/v2", "headers": get}),
        _reply(
            "openapi", {"path": OPENAPI_PATH, "headers": _method("GET", "HEAD")}, 200,
            json.dumps(openapi(door), ensure_ascii=False), scope="predict",
        ),
        _reply("wrong method", {"safe_regex": {"regex": f"{model}(/ready)?|/v2"}}, 405, "use GET", allow="GET"),
        _reply("wrong method", {"path": OPENAPI_PATH}, 405, "use GET", allow="GET, HEAD"),
    ]  # fmt: skip
    if door.auth is not None:
        paths = {"safe_regex": {"regex": f"{model}/(config|stats)"}}
        table.append(_http(door, "administration", paths | {"headers": get}, scope="admin"))
        table.append(_reply("wrong method", paths, 405, "use GET", allow="GET"))
    table.append(
        _reply(
            "unknown path",
            {"prefix": "/"},
            404,
            f"nothing is served at this path; POST texts to /v2/models/{door.model}/infer",
        )
    )
    return table


def _grpc(door: FrontDoor, path: str, scope: str) -> Json:
    method = path.rpartition("/")[2]
    # A message names its model in its first field: the path doesn't, and Triton may hold others.
    named = {"model in message": door.model} if method.startswith("Model") else {}
    return {
        "name": "health" if scope == "public" else method,
        "match": {"path": path, "grpc": {}},
        "route": _action(door, "grpc"),
        "metadata": _scope(scope),
        "typed_per_filter_config": {GUARD: typed(_LUA, filter_context={"grpc": True, **named})},
    }


def _http(door: FrontDoor, name: str, match: Json, scope: str = "predict") -> Json:
    return {"name": name, "match": match, "route": _action(door, "http"), "metadata": _scope(scope)}


def _action(door: FrontDoor, protocol: str) -> Json:
    return {
        "weighted_clusters": {
            "clusters": [
                {"name": cluster_name(backend, protocol), "weight": backend.weight}
                for backend in door.backends
                if backend.weight
            ]
        },
        "request_mirror_policies": [
            {"cluster": cluster_name(backend, protocol), "runtime_fraction": _fraction(backend.shadow_percent)}
            for backend in door.backends
            if backend.shadow_percent
        ],
        "timeout": seconds(door.timeout_s),
        "retry_policy": _NEVER_SENT,
    }


def _fraction(percent: float) -> Json:
    return {"default_value": {"numerator": round(percent * 10_000), "denominator": "MILLION"}}


def _scope(scope: str) -> Json:
    return {"filter_metadata": {ADMISSION: {"scope": scope}}}


def _method(*names: str) -> list[Json]:
    pattern = {"safe_regex": {"regex": "|".join(names)}}
    return [{"name": ":method", "string_match": pattern}]


def _reply(name: str, match: Json, status: int, text: str, scope: str = "any", allow: str | None = None) -> Json:
    """A route that ends here; whatever is sent to it is not worth guarding."""
    allowed = [{"header": {"key": "allow", "value": allow}}] if allow is not None else []
    return {
        "name": name,
        "match": match,
        "direct_response": {"status": status, "body": {"inline_string": text}},
        "metadata": _scope(scope),
        "response_headers_to_add": allowed,
        "typed_per_filter_config": {GUARD: typed(_LUA, disabled=True)},
    }
