"""What Envoy answers by itself: the reason in words, as JSON `{"error": "…"}` over HTTP, as the message over gRPC.

Every refusal has a status that tells a client what to do: 4xx is the caller's to mend, 429 and 503 come with
`Retry-After` (over gRPC `grpc-retry-pushback-ms`) and may be sent again.
"""

from dataclasses import dataclass, field

from serving.frontdoor.door import FrontDoor
from serving.frontdoor.limits import READ_TIMEOUT_S, retry_after_s
from serving.frontdoor.openapi import OPENAPI_PATH
from serving.frontdoor.xds import extension
from serving.protocol import Json

_GRPC_TYPE = {"safe_regex": {"regex": r"application/grpc(\+.*)?"}}
"""What Envoy takes for gRPC; application/grpc-web is not."""
_IS_GRPC = {"header_filter": {"header": {"name": "content-type", "string_match": _GRPC_TYPE}}}
_MODEL_DOWN = {"response_flag_filter": {"flags": ["UH", "UF", "UC", "NC", "URX"]}}


def security_headers(door: FrontDoor) -> list[Json]:
    """Headers of every answer."""
    headers = {"x-content-type-options": "nosniff", "cache-control": "no-store"}
    if door.tls is not None:
        headers["strict-transport-security"] = "max-age=31536000; includeSubDomains"
    return _headers(headers)


def local_replies(door: FrontDoor) -> Json:
    """The mapping of Envoy's own replies. The first that matches applies, so those for gRPC come first."""
    secure = security_headers(door)
    is_openapi = {"header_filter": {"header": {"name": ":path", "string_match": {"prefix": OPENAPI_PATH}}}}
    mappers: list[Json] = [
        {
            "filter": _all(_has_status(200), is_openapi),
            "body_format_override": _text("%LOCAL_REPLY_BODY%", "application/json"),
            "headers_to_add": secure,
        },
        {
            "filter": _has_status(200),
            "body_format_override": _text('{"status":"ok"}\n', "application/json"),
            "headers_to_add": secure,
        },
    ]
    plain = _text("%LOCAL_REPLY_BODY%", "text/plain")
    for refusal in _refusals(door):
        body = {"body": {"inline_string": refusal.reason}} if refusal.reason else {}
        of_grpc = {"grpc-status": str(refusal.grpc_status), **refusal.grpc_headers}
        mappers.append(
            {
                "filter": _all(_IS_GRPC, *refusal.when),
                "headers_to_add": [*secure, *_headers(of_grpc)],
                "body_format_override": plain,
                **body,
            }
        )
        mappers.append(
            {
                "filter": _all(*refusal.when),
                "headers_to_add": [*secure, *_headers(refusal.headers)],
                **body,
            }
        )
    anything = {"status_code_filter": {"comparison": {"op": "GE", "value": {"default_value": 0, "runtime_key": "any"}}}}
    mappers.append({"filter": _IS_GRPC, "body_format_override": plain, "headers_to_add": secure})
    mappers.append({"filter": anything, "headers_to_add": secure})
    return {"mappers": mappers, "body_format": {"json_format": {"error": "%LOCAL_REPLY_BODY%"}}}


@dataclass(frozen=True)
class _Refusal:
    """An HTTP status of Envoy's own, the gRPC status that means the same, and the words (None: keep Envoy's)."""

    status: int
    grpc_status: int
    reason: str | None
    only_if: Json | None = None
    headers: dict[str, str] = field(default_factory=dict)
    grpc_headers: dict[str, str] = field(default_factory=dict)

    @property
    def when(self) -> list[Json]:
        return [_has_status(self.status), *([self.only_if] if self.only_if else [])]


def _refusals(door: FrontDoor) -> list[_Refusal]:
    # The gRPC numbers: 3 INVALID_ARGUMENT, 4 DEADLINE_EXCEEDED, 5 NOT_FOUND, 8 RESOURCE_EXHAUSTED, 12 UNIMPLEMENTED,
    # 14 UNAVAILABLE. Envoy itself gives 401, 403 and 404 theirs: UNAUTHENTICATED, PERMISSION_DENIED, UNIMPLEMENTED.
    soon: dict[str, dict[str, str]] = {
        "headers": {"retry-after": "1"},
        "grpc_headers": {"grpc-retry-pushback-ms": "1000"},
    }
    wait = retry_after_s(door)
    return [
        # Envoy has no words for these, or only the status's name.
        _Refusal(400, 3, "the header Host is missing", _detail("missing_host_header")),
        _Refusal(400, 3, "the path can't be read", _detail("path_normalization_failed")),
        _Refusal(
            400, 3, "this is not HTTP, or can be read in two ways: look at the method, headers and lengths",
            _detail("http1."),
        ),
        _Refusal(404, 12, "nothing is served at this path", _detail("absolute_path_rejected")),
        _Refusal(426, 12, "HTTP/1.1 or HTTP/2 is needed"),
        _Refusal(501, 12, "this Transfer-Encoding is not served; send the body chunked or with its Content-Length"),
        _Refusal(400, 3, None),
        _Refusal(408, 4, f"the request did not arrive within {READ_TIMEOUT_S:g} s"),
        _Refusal(413, 8, f"the body is larger than {door.max_body_bytes} bytes; send less at a time"),
        _Refusal(415, 12, None),
        _Refusal(421, 5, None),
        _Refusal(
            429, 8, "too many requests: over the rate that is allowed; wait as long as Retry-After says",
            headers={"retry-after": str(wait)}, grpc_headers={"grpc-retry-pushback-ms": str(1000 * wait)},
        ),
        _Refusal(431, 8, "the headers are too large"),
        _Refusal(503, 14, "the model is not available; try again shortly", _MODEL_DOWN, **soon),
        _Refusal(503, 14, "too many requests are in flight; try again shortly", **soon),
        _Refusal(504, 4, f"no answer within {door.timeout_s:g} s, or the time that was asked for"),
    ]  # fmt: skip


def _detail(name: str) -> Json:
    """For what Envoy gives a name that begins with `name`, in `details` of the access log."""
    return {
        "extension_filter": extension(
            "envoy.access_loggers.extension_filters.cel",
            "extensions.access_loggers.filters.cel.v3.ExpressionFilter",
            expression=f"response.code_details.startsWith('{name}')",
        )
    }


def _headers(values: dict[str, str]) -> list[Json]:
    return [
        {"header": {"key": name, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
        for name, value in values.items()
    ]


def _text(template: str, content_type: str) -> Json:
    return {"text_format_source": {"inline_string": template}, "content_type": content_type}


def _all(*filters: Json) -> Json:
    return filters[0] if len(filters) == 1 else {"and_filter": {"filters": list(filters)}}


def _has_status(status: int) -> Json:
    # Every value needs a runtime key; none is ever set.
    value = {"default_value": status, "runtime_key": f"status_{status}"}
    return {"status_code_filter": {"comparison": {"op": "EQ", "value": value}}}
