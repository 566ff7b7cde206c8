"""What the front door stands in front of, and what it asks of callers: data, from which the other modules make Envoy's
configuration.

The sections of a recipe have the same names and fields (`slipway.recipe.frontdoor`). These are plain, because the
supervisor must be up before a validation library would be imported.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from serving.observability.tracing import Collector


@dataclass(frozen=True)
class Backend:
    """One Triton process on the loopback.

    With `weight` 0 it has clusters and health checks but gets no request, except copies if `shadow_percent` is more
    than 0. So a candidate is added with 0, given weight when it is healthy, and removed after it had 0 again: Envoy
    would answer 503 for a cluster that is not there yet, or not any more.
    """

    name: str
    """Letters, digits and dashes; the clusters are `NAME_http` and `NAME_grpc`."""
    http_port: int
    grpc_port: int
    weight: int = 100
    """Its part of the requests, over the sum of all weights."""
    shadow_percent: float = 0.0
    """Share of all requests that it gets a copy of, whose answers nobody sees."""
    version: str = ""
    """What the access log calls the model that answers here."""


@dataclass(frozen=True)
class Limits:
    """How much is let in; see `serving.frontdoor.limits` and `serving.frontdoor.overload`."""

    slo_ms: float | None = None
    max_in_flight: int | None = None
    rate: float | None = None
    burst: int | None = None
    key_rate: float | None = None
    key_burst: int | None = None


@dataclass(frozen=True)
class Auth:
    """Whom to let in: the API keys of a file, bearers of tokens that `jwks` verifies, or both."""

    keys: Path | None = None
    jwks: Path | None = None
    issuer: str = ""
    audiences: tuple[str, ...] = ()
    clock_skew_s: int = 30
    scope_claim: str = "scope"
    caller_claim: str = "sub"

    @classmethod
    def of(cls, section: Mapping[str, Any]) -> Self | None:
        """From a recipe's section as JSON; None if it asks for no credentials."""
        keys, jwks = (Path(file) if (file := section[name]) else None for name in ("keys", "jwks"))
        if keys is None and jwks is None:
            return None
        return cls(
            keys,
            jwks,
            section["issuer"] or "",
            tuple(section["audiences"]),
            section["clock_skew_s"],
            section["scope_claim"],
            section["caller_claim"],
        )


@dataclass(frozen=True)
class Tls:
    """The files of the server's certificate, and of the authorities that callers' certificates must come from."""

    certificate: Path
    key: Path
    client_ca: Path | None = None

    @classmethod
    def of(cls, section: Mapping[str, Any]) -> Self | None:
        """From a recipe's section as JSON; None if it asks for no TLS."""
        if section["certificate"] is None:
            return None
        return cls(**{name: Path(file) for name, file in section.items() if file is not None})


@dataclass(frozen=True)
class FrontDoor:
    """Everything that Envoy's configuration is made from."""

    model: str
    host: str
    port: int
    """0 takes a free one; Envoy's admin socket tells which."""
    backends: tuple[Backend, ...]
    health_text: str
    """A text that the model can classify."""
    max_body_bytes: int
    max_connections: int
    max_queue: int
    """Requests that may wait for an instance."""
    instances: int
    """Copies of the model in each backend."""
    timeout_s: float
    admin_socket: Path
    access_log: Path
    labels: tuple[str, ...] = ()
    auth: Auth | None = None
    """None lets everybody in, and is for the loopback only."""
    tls: Tls | None = None
    limits: Limits = Limits()
    service_ms: float | None = None
    """How long an instance takes for one request while all are busy; None: not measured yet."""
    collector: Collector | None = None
    """Of traces."""
    health_socket: Path | None = None
    """Where the health paths are answered as well, for whoever watches this machine; a Unix socket."""

    @property
    def main(self) -> Backend:
        """The backend that most requests go to; the endpoint is as healthy as this one."""
        return max(self.backends, key=lambda backend: backend.weight)
