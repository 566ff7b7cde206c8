"""What Envoy and Triton are told about traces; the model's own spans are in `spans`.

One trace goes through all parts: Envoy begins it or continues a caller's (W3C `traceparent`), Triton continues Envoy's,
the model continues Triton's. Envoy alone decides what is sampled. Everything is sent as OTLP over HTTP, the one form
that this Triton can send and that every collector takes.

Triton has no sampler for requests that come with a `traceparent`: it records every one, sampled or not. So the header
of those that Envoy did not choose is taken off on their way to Triton (`upstream_filters`), and Triton's own sampling
is set to as good as never; the model sees no header and records nothing, either.

No text gets into a span: Envoy's have the path without its query and nothing of the caller, Triton's have the model's
name, version and timestamps (`level=TIMESTAMPS`; `TENSORS` would record inputs and is not used).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import urlsplit

from serving.protocol import Json

CLUSTER = "collector"
TRACES_PATH = "/v1/traces"

_TYPE = "type.googleapis.com/envoy."
_PORTS = {"http": 80, "https": 443}
_TIMEOUT = "2s"
_HARDLY_EVER = 2**31 - 1
_QUEUED_SPANS = 2048
_PARTS = 1_000_000

_WITHOUT_UNSAMPLED = """
function envoy_on_request(handle)
  local parent = handle:headers():get("traceparent")
  if parent ~= nil and parent:sub(-1):match("[13579bdf]") == nil then
    handle:headers():remove("traceparent")
  end
end
"""


@dataclass(frozen=True)
class Collector:
    """Where spans go, plainly: the supervisor must be up before a validation library would be imported."""

    url: str
    """Base address, without a path."""
    service: str = "slipway"
    sample: float = 1.0
    """Share of the requests that come without a decision about it."""

    @classmethod
    def of(cls, observe: Mapping[str, Any]) -> Self | None:
        """From the recipe's section as JSON; None if it names none."""
        url = observe.get("otlp")
        return None if url is None else cls(url, observe["service"], observe["trace_sample"])


def tracing(collector: Collector | None) -> Json:
    """What is added to the connection manager of Envoy: nothing without a collector."""
    if collector is None:
        return {}
    parts = {"numerator": round(_PARTS * collector.sample), "denominator": "MILLION"}
    by_share = _sampler("trace_id_ratio_based", "TraceIdRatioBasedSamplerConfig", sampling_percentage=parts)
    provider = {
        "@type": _TYPE + "config.trace.v3.OpenTelemetryConfig",
        "service_name": f"{collector.service}-front-door",
        "http_service": {
            "http_uri": {"uri": collector.url + TRACES_PATH, "cluster": CLUSTER, "timeout": _TIMEOUT},
        },
        "sampler": _sampler("parent_based", "ParentBasedSamplerConfig", wrapped_sampler=by_share),
    }
    return {
        "tracing": {
            "provider": {"name": "envoy.tracers.opentelemetry", "typed_config": provider},
            # These come before the sampler, and know nothing of a caller's decision.
            "client_sampling": {"value": 100},
            "random_sampling": {"value": 100},
            "overall_sampling": {"value": 100},
            # In place of what Envoy always adds: a query string and a user agent may hold anything, an address is
            # somebody's. The access log has the latter two.
            "custom_tags": [
                {"tag": "http.url", "value": "%PATH(NQ)%"},
                {"tag": "user_agent", "literal": {"value": "-"}},
                {"tag": "peer.address", "literal": {"value": "-"}},
            ],
        }
    }


def _sampler(name: str, kind: str, **fields: object) -> Json:
    return {
        "name": f"envoy.tracers.opentelemetry.samplers.{name}",
        "typed_config": {"@type": f"{_TYPE}extensions.tracers.opentelemetry.samplers.v3.{kind}", **fields},
    }


def collector_clusters(collector: Collector | None) -> list[Json]:
    """Envoy's way to the collector: a cluster, or none without one."""
    if collector is None:
        return []
    url = urlsplit(collector.url)
    host, port = str(url.hostname), url.port or _PORTS[url.scheme]
    cluster: Json = {
        "name": CLUSTER,
        "type": "STRICT_DNS",
        "connect_timeout": "1s",
        "load_assignment": {
            "cluster_name": CLUSTER,
            "endpoints": [
                {"lb_endpoints": [{"endpoint": {"address": {"socket_address": {"address": host, "port_value": port}}}}]}
            ],
        },
    }
    if url.scheme == "https":
        trusted = {"trusted_ca": {"filename": "/etc/ssl/certs/ca-certificates.crt"}}
        cluster["transport_socket"] = {
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": _TYPE + "extensions.transport_sockets.tls.v3.UpstreamTlsContext",
                "sni": host,
                "auto_sni_san_validation": True,
                "common_tls_context": {"validation_context": trusted},
            },
        }
    return [cluster]


def upstream_filters(collector: Collector | None) -> Json:
    """What is added to the HTTP protocol options of Envoy's clusters for Triton: nothing without a collector."""
    if collector is None:
        return {}
    filters = [
        {
            "name": "envoy.filters.http.lua",
            "typed_config": {
                "@type": _TYPE + "extensions.filters.http.lua.v3.Lua",
                "default_source_code": {"inline_string": _WITHOUT_UNSAMPLED},
            },
        },
        {
            "name": "envoy.filters.http.upstream_codec",
            "typed_config": {"@type": _TYPE + "extensions.filters.http.upstream_codec.v3.UpstreamCodec"},
        },
    ]
    return {"http_filters": filters}


def triton_options(collector: Collector | None) -> list[str]:
    """Options of the command line of Triton."""
    if collector is None:
        return []
    settings = {
        "mode": "opentelemetry",
        "level": "TIMESTAMPS",
        "rate": _HARDLY_EVER,
        "opentelemetry,url": collector.url + TRACES_PATH,
        "opentelemetry,resource": f"service.name={collector.service}-triton",
        "opentelemetry,bsp_max_queue_size": _QUEUED_SPANS,
    }
    return [f"--trace-config={name}={value}" for name, value in settings.items()]
