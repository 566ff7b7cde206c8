"""How much is let in: sizes, times, connections and rates. What follows from the model's speed is `overload`.

Rates are token buckets: so many requests a second on average, and `burst` at once. There is one bucket for all callers
and one for each caller, by the id of the key or the subject of the token, so that one caller can't use up what is
meant for all. They are this endpoint's own: of three replicas each lets its rate in, and nobody is asked about it.
"""

import math

from serving.frontdoor.admission import CALLER_KEY
from serving.frontdoor.door import FrontDoor
from serving.frontdoor.xds import extension, seconds
from serving.protocol import Json

READ_TIMEOUT_S = 15.0
"""For the headers, and for the whole request: a caller that drips is cut off, and holds no place in the queue."""
HEADERS_KB = 16
HEADERS = 64
STREAMS = 1024
"""Requests at a time of one HTTP/2 connection."""

_CALLERS = 1000
_HEAP = "envoy.resource_monitors.fixed_heap"
_HEAP_BYTES = 1 << 30
_UNLIMITED = {"max_tokens": 4_000_000_000, "tokens_per_fill": 4_000_000_000, "fill_interval": "1s"}


def rate_filter(door: FrontDoor) -> list[Json]:
    """The filter that answers 429; none if there is no rate to hold."""
    limits = door.limits
    if limits.rate is None and limits.key_rate is None:
        return []
    settings: Json = {
        "stat_prefix": "rate",
        "status": {"code": "TooManyRequests"},
        "token_bucket": _UNLIMITED if limits.rate is None else _bucket(limits.rate, limits.burst),
        "filter_enabled": _always("rate_enabled"),
        "filter_enforced": _always("rate_enforced"),
        "rate_limited_as_resource_exhausted": True,
    }
    if limits.key_rate is not None:
        by_caller = {"metadata": {"descriptor_key": "caller", "metadata_key": CALLER_KEY, "source": "DYNAMIC"}}
        settings |= {
            "rate_limits": [{"actions": [by_caller]}],
            # An entry without a value gives each value a bucket of its own.
            "descriptors": [
                {"entries": [{"key": "caller"}], "token_bucket": _bucket(limits.key_rate, limits.key_burst)}
            ],
            "max_dynamic_descriptors": _CALLERS,
        }
    return [extension("rate", "extensions.filters.http.local_ratelimit.v3.LocalRateLimit", **settings)]


def retry_after_s(door: FrontDoor) -> int:
    """Seconds until the slowest bucket has a token again."""
    rates = [rate for rate in (door.limits.rate, door.limits.key_rate) if rate is not None]
    return max(1, math.ceil(1 / min(rates))) if rates else 1


def body_filter(door: FrontDoor) -> Json:
    """The filter that reads a whole body before anything is decided by it, or answers 413."""
    return extension(
        "envoy.filters.http.buffer", "extensions.filters.http.buffer.v3.Buffer", max_request_bytes=door.max_body_bytes
    )


def own_limits(door: FrontDoor) -> Json:
    """Envoy's overload manager: connections beyond the limit are closed as they come.

    Bodies that still arrive are held in memory; when they fill what Envoy may have, requests are refused with 503.
    """
    connections = extension(
        "envoy.resource_monitors.global_downstream_max_connections",
        "extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
        max_active_downstream_connections=door.max_connections,
    )
    heap = extension(
        _HEAP, "extensions.resource_monitors.fixed_heap.v3.FixedHeapConfig", max_heap_size_bytes=_HEAP_BYTES
    )
    full = {"name": _HEAP, "threshold": {"value": 0.95}}
    return {
        "refresh_interval": "0.25s",
        "resource_monitors": [connections, heap],
        "actions": [{"name": "envoy.overload_actions.stop_accepting_requests", "triggers": [full]}],
    }


def protocol_limits(door: FrontDoor) -> Json:
    """Of the connection manager: times, sizes, and no reading of a request in two ways (request smuggling)."""
    return {
        "request_headers_timeout": seconds(READ_TIMEOUT_S),
        "request_timeout": seconds(READ_TIMEOUT_S),
        "stream_idle_timeout": seconds(READ_TIMEOUT_S + door.timeout_s),
        "max_request_headers_kb": HEADERS_KB,
        "common_http_protocol_options": {
            "idle_timeout": "300s",
            "max_headers_count": HEADERS,
            # x_request_id is another header to Envoy and the same to many a server.
            "headers_with_underscores_action": "REJECT_REQUEST",
        },
        "http_protocol_options": {
            "allow_chunked_length": False,
            "accept_http_10": False,
            # Whoever offers another protocol is answered in this one (RFC 9110, 7.8).
            "ignore_http_11_upgrade": [{"safe_regex": {"regex": ".*"}}],
        },
        "http2_protocol_options": {
            "max_concurrent_streams": STREAMS,
            "initial_stream_window_size": 1 << 16,
            "initial_connection_window_size": 1 << 20,
        },
    }


def _bucket(rate: float, burst: int | None) -> Json:
    """Envoy adds fractions of a token all the time; whole tokens for an interval are only how it takes the rate."""
    tokens = math.ceil(rate)
    size = burst if burst is not None else tokens
    return {"max_tokens": size, "tokens_per_fill": tokens, "fill_interval": seconds(tokens / rate)}


def _always(key: str) -> Json:
    return {"default_value": {"numerator": 100, "denominator": "HUNDRED"}, "runtime_key": key}
