"""How `serve.observe` reaches the model: in the environment of its processes, as JSON.

Not in the repository: that is an artifact, and stays the same however it is watched.
"""

import json
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from slipway.recipe import Observe

SETTINGS = "SLIPWAY_OBSERVE"
"""Name of the environment variable."""


def observe_environment(section: Mapping[str, Any]) -> dict[str, str]:
    """What the endpoint sets for its models, from the section as JSON."""
    return {SETTINGS: json.dumps(section)}


def settings_from_environment() -> "Observe":
    """What the endpoint set; without it, as in a server that somebody else started, the defaults."""
    from slipway.recipe import Observe

    return Observe.model_validate_json(os.environ.get(SETTINGS) or "{}")


def require_extras(settings: "Observe") -> None:
    """Raise `ServingError` that names the extra, if something that is asked for isn't installed."""
    if settings.otlp is not None:
        from serving.observability.spans import require_opentelemetry

        require_opentelemetry()
    if settings.capture.rate > 0:
        from serving.privacy.presidio import require_presidio

        require_presidio()
