"""The serving stage: a bundle becomes an endpoint, Triton behind Envoy, HTTP and gRPC on one port.

    protocol.py    the names and limits of the wire format that model, front door and client share
    unix_socket.py how Envoy's administration is asked
    repository/    bundle → Triton model repository, an artifact
    model/         what runs inside Triton: text in, label out
    frontdoor/     Envoy's configuration: who is let in, how much, and where it goes
    server/        the processes: started, watched, mended, drained, swept away
    rollout/       a new version beside the old, and in its place if it keeps its bounds
    observability/ metrics, traces, logs
    privacy/       masking, and the capture of masked requests
    client/        a caller's side: for threads, for asyncio, for tables

Neither torch nor transformers is needed. Names are loaded on first use: Triton's stubs import this package for
`serving.model` alone, once for each instance, and the supervisor must be up in a moment.
"""

import contextlib
import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from serving.client import (
        Answer,
        AsyncClient,
        CallError,
        Client,
        DeadlineExceededError,
        EndpointFailedError,
        EndpointUnavailableError,
        ForbiddenError,
        KeepAlive,
        RateLimitedError,
        RequestRefusedError,
        Retries,
        Tls,
        UnauthenticatedError,
        curl_line,
    )
    from serving.repository import Repository, write_repository
    from serving.server.endpoint import Endpoint, start
    from slipway.recipe import Serve

__all__ = [
    "Answer",
    "AsyncClient",
    "CallError",
    "Client",
    "DeadlineExceededError",
    "Endpoint",
    "EndpointFailedError",
    "EndpointUnavailableError",
    "ForbiddenError",
    "KeepAlive",
    "RateLimitedError",
    "Repository",
    "RequestRefusedError",
    "Retries",
    "Tls",
    "UnauthenticatedError",
    "curl_line",
    "serve",
    "start",
    "write_repository",
]

_HOMES = {
    "Answer": "client",
    "AsyncClient": "client",
    "CallError": "client",
    "Client": "client",
    "DeadlineExceededError": "client",
    "EndpointFailedError": "client",
    "EndpointUnavailableError": "client",
    "ForbiddenError": "client",
    "KeepAlive": "client",
    "RateLimitedError": "client",
    "RequestRefusedError": "client",
    "Retries": "client",
    "Tls": "client",
    "UnauthenticatedError": "client",
    "curl_line": "client",
    "Endpoint": "server.endpoint",
    "start": "server.endpoint",
    "Repository": "repository",
    "write_repository": "repository",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def serve(path: Path, section: "Serve", repository_out: Path | None = None, *, digest: str | None = None) -> int:
    """Serve the bundle or repository at `path` until Ctrl-C or SIGTERM; returns 0 then.

    A bundle is rendered as a repository first, at `repository_out`, by default beside the bundle. Prints a `curl` line
    on standard output. Raises `ArtifactError`, also if what is there hasn't the `digest`, or `ServingError`.
    """
    from serving.client import curl_line
    from serving.observability.logs import log_json, relayed
    from serving.repository import write_repository
    from serving.server.endpoint import sigterm_interrupts, start
    from slipway.artifacts import read_artifact, require_digest
    from slipway.bundle import Bundle
    from slipway.errors import ServingError
    from slipway.progress import say

    artifact = read_artifact(path, verify=False)
    if section.observe.logs == "json":
        log_json(model=artifact.manifest.name)
    if digest is not None:
        require_digest(artifact, digest)
    if artifact.manifest.kind not in ("bundle", "repository"):
        raise ServingError(f"{path} is a {artifact.manifest.kind}; a bundle or a repository can be served.")
    if not section.auth.is_on and section.auth.keyless is None:
        raise ServingError(
            "nobody said who may call: make a key with `slipway keys new keys.json ID --scope predict:MODEL` and set "
            "serve.auth.keys, or let every program of this machine in with --keyless (serve.auth.keyless: loopback)."
        )
    if artifact.manifest.kind == "bundle":
        out = repository_out or path.absolute().parent / "repository"
        artifact = write_repository(Bundle.open(path), out, section)
    with start(artifact.path, section) as endpoint, relayed(endpoint.access_log.parent, section.observe.logs):
        with contextlib.suppress(KeyboardInterrupt), sigterm_interrupts():
            say(f"{endpoint.model} is served at {endpoint.address}, HTTP and gRPC.")
            if section.observe.access_log == "file":
                say("Try:")
                print(curl_line(endpoint.url, endpoint.model, endpoint.example), flush=True)
            if section.auth.is_on:
                say("It takes credentials: add -H 'x-api-key: …' or -H 'authorization: Bearer …'.")
            requests = "" if section.observe.access_log == "stdout" else f" Requests: {endpoint.access_log}."
            say(f"Health: {endpoint.url}/healthz.{requests} Ctrl-C stops it.")
            say(f"Metrics: {endpoint.metrics_url}")
            endpoint.wait()
        say("Stopping.")
    return 0
