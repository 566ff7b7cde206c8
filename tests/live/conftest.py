"""The chart's queries need the real Helm, too."""

from tests.helm.rendering import helm

__all__ = ["helm"]
