"""How `serve.observe` reaches the model: in the environment of its processes, as JSON.

Not in the repository: that is an artifact, and stays the same however it is watched.
"""

import os

from slipway.recipe.observability import Observe

SETTINGS = "SLIPWAY_OBSERVE"
"""Name of the environment variable."""


def observe_environment(settings: Observe) -> dict[str, str]:
    """What the endpoint sets for its models."""
    return {SETTINGS: settings.model_dump_json()}


def settings_from_environment() -> Observe:
    """What the endpoint set; without it, as in a server that somebody else started, the defaults."""
    return Observe.model_validate_json(os.environ.get(SETTINGS) or "{}")


def require_extras(settings: Observe) -> None:
    """Raise `ServingError` that names the extra, if something that is asked for isn't installed."""
    if settings.otlp is not None:
        from serving.observability.spans import require_opentelemetry

        require_opentelemetry()
    if settings.capture.rate > 0:
        from serving.privacy.presidio import require_presidio

        require_presidio()
