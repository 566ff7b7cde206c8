"""HTTP/1.1: a pool of connections that are kept open; each carries one request at a time.

Proxies of the environment (`http_proxy`) are not used, as for gRPC: an endpoint is inside.
"""

import contextlib
import json
import ssl
import time
from collections.abc import Iterator
from typing import Any

import httpx

from serving.client.connecting import KeepAlive, Tls
from serving.client.errors import DeadlineExceededError, EndpointFailedError, EndpointUnavailableError, error_of_http
from serving.client.messages import (
    RETRY_AFTER,
    Outputs,
    Question,
    Reply,
    http_path,
    http_question,
    reading,
    waiting_time_s,
)
from serving.protocol import REQUEST_ID

_KEPT_CONNECTIONS = 64


class HttpConnection:
    """Calls from any thread."""

    def __init__(self, address: str, tls: Tls | None, keep_alive: KeepAlive) -> None:
        self._client = httpx.Client(**_settings(address, tls, keep_alive))
        self._address = address
        self._extensions = _extensions(tls)

    def infer(self, question: Question, headers: dict[str, str], timeout_s: float) -> Reply:
        """Ask; raises a `CallError`."""
        body, more = http_question(question)
        response, content = self._call(
            "POST", http_path(question.model) + "/infer", body, {**headers, **more}, timeout_s
        )
        return _reply(response, content, headers)

    def outputs(self, model: str, headers: dict[str, str], timeout_s: float) -> Outputs:
        """What the model can be asked for; raises a `CallError`."""
        return _outputs(self._call("GET", http_path(model), None, headers, timeout_s)[1])

    def close(self) -> None:
        """Calls under way fail."""
        self._client.close()

    def _call(
        self, method: str, path: str, body: bytes | None, headers: dict[str, str], timeout_s: float
    ) -> tuple[httpx.Response, bytes]:
        until = time.monotonic() + timeout_s
        parts = []
        with (
            _translated(self._address, headers, timeout_s),
            self._client.stream(
                method, path, content=body, headers=headers, timeout=timeout_s, extensions=self._extensions
            ) as response,
        ):
            # httpx's time limit is for each read, not for all of them.
            for part in response.iter_bytes():
                parts.append(part)
                if time.monotonic() > until:
                    raise httpx.ReadTimeout("")
        return _checked(response, b"".join(parts), headers, self._address)


class AsyncHttpConnection:
    """Calls from one event loop."""

    def __init__(self, address: str, tls: Tls | None, keep_alive: KeepAlive) -> None:
        self._client = httpx.AsyncClient(**_settings(address, tls, keep_alive))
        self._address = address
        self._extensions = _extensions(tls)

    async def infer(self, question: Question, headers: dict[str, str], timeout_s: float) -> Reply:
        """Ask; raises a `CallError`."""
        body, more = http_question(question)
        response, content = await self._call(
            "POST", http_path(question.model) + "/infer", body, {**headers, **more}, timeout_s
        )
        return _reply(response, content, headers)

    async def outputs(self, model: str, headers: dict[str, str], timeout_s: float) -> Outputs:
        """What the model can be asked for; raises a `CallError`."""
        _, content = await self._call("GET", http_path(model), None, headers, timeout_s)
        return _outputs(content)

    async def close(self) -> None:
        """Calls under way fail."""
        await self._client.aclose()

    async def _call(
        self, method: str, path: str, body: bytes | None, headers: dict[str, str], timeout_s: float
    ) -> tuple[httpx.Response, bytes]:
        import asyncio

        with _translated(self._address, headers, timeout_s):
            async with asyncio.timeout(timeout_s):
                response = await self._client.request(
                    method, path, content=body, headers=headers, timeout=timeout_s, extensions=self._extensions
                )
        return _checked(response, response.content, headers, self._address)


def _settings(address: str, tls: Tls | None, keep_alive: KeepAlive) -> dict[str, Any]:
    return {
        "base_url": f"{'http' if tls is None else 'https'}://{address}",
        # Without TLS there is nothing to verify, and loading the authorities takes 20 ms.
        "verify": False if tls is None else tls.context(),
        "limits": httpx.Limits(
            max_connections=None, max_keepalive_connections=_KEPT_CONNECTIONS, keepalive_expiry=keep_alive.idle_s
        ),
        "trust_env": False,
    }


def _extensions(tls: Tls | None) -> dict[str, Any]:
    return {} if tls is None or tls.server_name is None else {"sni_hostname": tls.server_name}


@contextlib.contextmanager
def _translated(address: str, headers: dict[str, str], timeout_s: float) -> Iterator[None]:
    request_id = headers[REQUEST_ID]
    try:
        yield
    except (httpx.TimeoutException, TimeoutError):
        raise DeadlineExceededError(f"{address}: no answer within {timeout_s:.3g} s", request_id=request_id) from None
    # Over asyncio, an alert that comes after the handshake, as with TLS 1.3 and no certificate, gets past httpx.
    except (httpx.TransportError, ssl.SSLError) as error:
        reason = str(error) or type(error).__name__
        raise EndpointUnavailableError(f"{address} can't be reached: {reason}", request_id=request_id) from None


def _checked(
    response: httpx.Response, content: bytes, headers: dict[str, str], address: str
) -> tuple[httpx.Response, bytes]:
    if response.status_code == httpx.codes.OK:
        return response, content
    kind = error_of_http(response.status_code)
    reason = _reason(content) or f"HTTP {response.status_code} {response.reason_phrase}".rstrip()
    raise kind(
        f"{address}: {reason}" if kind.worth_repeating else reason,
        request_id=response.headers.get(REQUEST_ID) or headers[REQUEST_ID],
        retry_after_s=waiting_time_s(response.headers.get(RETRY_AFTER)),
    )


def _reason(content: bytes) -> str | None:
    """What the endpoint says; some other server's page is not repeated, as nobody knows what is in it."""
    try:
        return str(json.loads(content)["error"])
    except (ValueError, KeyError, TypeError):
        return None


def _outputs(content: bytes) -> Outputs:
    try:
        return {output["name"]: tuple(output["shape"]) for output in json.loads(content)["outputs"]}
    except (ValueError, KeyError, TypeError) as error:
        raise EndpointFailedError(f"the model's metadata can't be read: {type(error).__name__}") from None


def _reply(response: httpx.Response, content: bytes, headers: dict[str, str]) -> Reply:
    import tritonclient.http as triton

    request_id = response.headers.get(REQUEST_ID) or headers[REQUEST_ID]
    header_length = response.headers.get("inference-header-content-length")
    with reading(request_id):
        result = triton.InferenceServerClient.parse_response_body(
            content, header_length=int(header_length) if header_length is not None else None
        )
        version = str(result.get_response().get("model_version", ""))
    return Reply(result, version, request_id)
