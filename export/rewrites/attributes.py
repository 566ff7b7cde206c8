"""Attributes of ONNX nodes as Python values."""

from typing import Any


def attribute_of(node: Any, name: str, default: Any = None) -> Any:
    """The value of the attribute `name` of `node`, or `default`."""
    from onnx import helper

    return next((helper.get_attribute_value(entry) for entry in node.attribute if entry.name == name), default)
