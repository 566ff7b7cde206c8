"""What a recipe may say about the endpoint."""

from typing import Annotated, Literal

from pydantic import Field

from slipway.recipe.frontdoor import Auth, Limits, Tls
from slipway.recipe.observability import Observe
from slipway.recipe.rollout import Rollout
from slipway.recipe.section import Section


class Gpu(Section):
    """How a GPU is used; only read where the bundle has a model for it."""

    instances: Annotated[int, Field(ge=1, le=16)] = 1
    """Copies of the model on each GPU; a second one hides copying behind computing."""
    engine_cache: str = "/var/cache/slipway/tensorrt"
    """Directory for what TensorRT compiled, so that it compiles once; the server must be able to write there."""
    workspace_mb: Annotated[int, Field(ge=64, le=65536)] = 2048
    """Memory that TensorRT may use for a layer while it compiles and runs."""


class Serve(Section):
    """The endpoint."""

    layout: Literal["fused", "ensemble"] = "fused"
    """`fused`: tokenize, run and decode in one model; `ensemble`: in three, so that Triton batches the encoder's."""
    target: Literal["cpu", "gpu"] = "cpu"
    """Which of the bundle's models is served; `gpu` needs a Triton of one's own (`SLIPWAY_TRITON`)."""
    host: str = "127.0.0.1"
    """Address to listen on. Anything but loopback is open to the network, and needs `auth`."""
    port: Annotated[int, Field(ge=0, le=65535)] = 8080
    """HTTP and gRPC share it; 0 takes a free one."""
    instances: Annotated[int, Field(ge=1, le=256)] | None = None
    """Copies of the model; by default one for each core that the bundle's threads leave."""
    threads: Annotated[int, Field(ge=1, le=256)] | None = None
    """Per instance; by default what the bundle was measured with."""
    long_text: Literal["reject", "truncate", "window"] = "truncate"
    """Of a text longer than the model takes: refuse it, cut it, or run it in windows whose scores are merged."""
    window_stride: Annotated[int, Field(ge=0)] = 32
    """Tokens that a window shares with the one before it."""
    max_windows: Annotated[int, Field(ge=1, le=1024)] = 8
    """Of one text; what lies beyond is cut, and `truncated` says so."""
    max_batch_tokens: Annotated[int, Field(ge=1, le=1_048_576)] = 4096
    """Texts × tokens of the longest, of one call of the engine; one text may be longer."""
    max_queue: Annotated[int, Field(ge=1, le=65536)] = 256
    """Requests that may wait for an instance; more are refused with 503."""
    queue_delay_us: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    """How long Triton holds a request back for others to join its batch; paid in each step."""
    gpu: Gpu = Gpu()
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
    observe: Observe = Observe()
    rollout: Rollout = Rollout()
