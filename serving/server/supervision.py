"""What passes between the process that wants an endpoint and the supervisor that keeps it: a plan, and events.

The plan is a file in the runtime directory; events are lines of JSON on the supervisor's standard output.
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from serving.repository.plan import TargetName

PLAN = "plan.json"
_START_TIMEOUT_S: "dict[TargetName, float]" = {"cpu": 120.0, "gpu": 1800.0}
"""For a GPU, TensorRT compiles the model first, unless it finds it in its cache."""


@dataclass(frozen=True)
class Plan:
    """The endpoint to keep up; `host` is a numeric address, `envoy` the program."""

    envoy: str
    model: str
    repository: str
    """Where what is served first was staged from."""
    digest: str
    """Of its manifest."""
    instances: int
    """Of what runs the model, as planned for a CPU; Triton says how many there are."""
    runner: str
    """Name of Triton's model that runs it: of an ensemble, its encoder."""
    host: str
    port: int
    max_body_bytes: int
    max_connections: int
    max_queue: int
    timeout_s: float
    grace_s: float
    """How long what was accepted may take to be answered when the endpoint ends."""
    workers: int
    """Envoy's threads."""
    probes: list[str]
    """Texts that the service time is measured with, one at least; the first is what health checks ask."""
    labels: list[str] = field(default_factory=list)
    auth: dict[str, Any] | None = None
    """The recipe's section, as are the next three; None asks for nothing."""
    tls: dict[str, Any] | None = None
    limits: dict[str, Any] = field(default_factory=dict)
    observe: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    """The recipe's whole `serve` section, for versions that are promoted later."""
    access_log: str = ""
    """Where it goes; into the runtime directory if empty."""
    triton: str = ""
    """Directory of a Triton of one's own; empty for the wheel's."""
    target: "TargetName" = "cpu"
    """Whose configurations Triton loads."""

    @property
    def start_timeout_s(self) -> float:
        """How long a Triton may take until its model is ready."""
        return _START_TIMEOUT_S[self.target]

    def write(self, directory: Path) -> None:
        """Leave it where the supervisor looks."""
        (directory / PLAN).write_text(json.dumps(asdict(self)), encoding="utf-8")

    @classmethod
    def read(cls, directory: Path) -> "Plan":
        """What `write` left."""
        return cls(**json.loads((directory / PLAN).read_text(encoding="utf-8")))


@dataclass(frozen=True)
class Event:
    """Something that the supervisor has to say. With "ready" come `port`, `triton` (its version), its own ports, and
    `instances` (of what runs the model).
    """

    kind: Literal["ready", "note", "failed"]
    message: str = ""
    port: int = 0
    metrics: int = 0
    triton: str = ""
    http_port: int = 0
    grpc_port: int = 0
    instances: int = 0

    @classmethod
    def ready(cls, triton: str, port: int, metrics: int, http_port: int, grpc_port: int, instances: int) -> "Event":
        """The front door answers."""
        return cls("ready", "", port, metrics, triton, http_port, grpc_port, instances)

    def line(self) -> str:
        """One line of JSON."""
        return json.dumps(asdict(self), ensure_ascii=True)

    @classmethod
    def parse(cls, line: str) -> "Event":
        """What `line` made."""
        return cls(**json.loads(line))
