"""How `serve.observe` reaches the model: in the environment of its processes, as JSON.

Not in the repository: that is an artifact, and stays the same however it is watched. What is read there is plain; the
recipe has checked it, and a model process that imported the recipe would be ready a quarter of a second later.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

SETTINGS = "SLIPWAY_OBSERVE"
"""Name of the environment variable."""


@dataclass(frozen=True)
class CaptureSettings:
    """As the recipe's section `serve.observe.capture`."""

    rate: float
    directory: str
    max_mb: float
    max_file_mb: float


@dataclass(frozen=True)
class Settings:
    """What a model is asked for; without anything it counts and does nothing else."""

    otlp: str | None = None
    service: str = ""
    capture: CaptureSettings | None = None

    @classmethod
    def of(cls, section: Mapping[str, Any]) -> Self:
        """From the recipe's section as JSON."""
        capture = section.get("capture") or {}
        wanted = CaptureSettings(**capture) if capture.get("rate") else None
        return cls(section.get("otlp"), section.get("service", ""), wanted)

    @classmethod
    def from_environment(cls) -> Self:
        """What the endpoint set; nothing in a server that somebody else started."""
        return cls.of(json.loads(os.environ.get(SETTINGS) or "{}"))


def observe_environment(section: Mapping[str, Any]) -> dict[str, str]:
    """What the endpoint sets for its models, from the section as JSON."""
    return {SETTINGS: json.dumps(section)}


def holds_back(section: Mapping[str, Any]) -> bool:
    """Whether a model has something to write or to send when it ends: spans, or captured texts."""
    settings = Settings.of(section)
    return settings.otlp is not None or settings.capture is not None


def require_extras(settings: Settings) -> None:
    """Raise `ServingError` that names the extra, if something that is asked for isn't installed."""
    if settings.otlp is not None:
        from serving.observability.spans import require_opentelemetry

        require_opentelemetry()
    if settings.capture is not None:
        from serving.privacy.presidio import require_presidio

        require_presidio()
