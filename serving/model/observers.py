"""Who observes the model: counts, traces, capture."""

from pathlib import Path
from typing import Any

from serving.model.observation import Observer, Silent


def make_observer(triton: Any, parameters: dict[str, str], directory: Path) -> Observer:  # noqa: ARG001
    """The observer of a model's process.

    Args:
        triton: the module `triton_python_backend_utils`.
        parameters: the model's, from its configuration.
        directory: of the model's version.
    """
    return Silent()
