"""The real Helm, which must take what is written for it."""

from tests.helm.rendering import helm, render

__all__ = ["helm", "render"]
