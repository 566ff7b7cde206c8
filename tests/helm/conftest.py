"""The real Helm for every test of this folder."""

from tests.helm.rendering import helm, render

__all__ = ["helm", "render"]
