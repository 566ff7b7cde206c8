"""What a recipe may say about the endpoint."""

from typing import Annotated, Literal

from pydantic import Field

from slipway.recipe.frontdoor import Auth, Limits, Tls
from slipway.recipe.rollout import Rollout
from slipway.recipe.section import Section


class Serve(Section):
    """The endpoint."""

    layout: Literal["fused"] = "fused"
    """`fused`: tokenize, run and decode in one model."""
    host: str = "127.0.0.1"
    """Address to listen on. Anything but loopback is open to the network, and needs `auth`."""
    port: Annotated[int, Field(ge=0, le=65535)] = 8080
    """HTTP and gRPC share it; 0 takes a free one."""
    instances: Annotated[int, Field(ge=1, le=256)] | None = None
    """Copies of the model; by default one for each core that the bundle's threads leave."""
    threads: Annotated[int, Field(ge=1, le=256)] | None = None
    """Per instance; by default what the bundle was measured with."""
    max_body_bytes: Annotated[int, Field(ge=1024, le=3_000_000)] = 1_048_576
    """A larger request is refused with 413. Triton's JSON parser does not survive 4 MiB."""
    max_connections: Annotated[int, Field(ge=1)] = 4096
    """Connections that are open at a time; more are refused."""
    timeout_s: Annotated[float, Field(gt=0, le=600)] = 10.0
    """A request that takes longer is answered with 504."""
    grace_s: Annotated[float, Field(ge=0, le=3600)] = 15.0
    """At the end, requests that were accepted have so long to be answered; then they get 503."""
    auth: Auth = Auth()
    tls: Tls = Tls()
    limits: Limits = Limits()
    rollout: Rollout = Rollout()
