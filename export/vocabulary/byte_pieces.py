"""The 256 pieces `<0x00>` … `<0xFF>` with which Llama-like tokenizers spell what their vocabulary lacks."""

from collections.abc import Mapping
from typing import Any

_ALL = frozenset(f"<0x{byte:02X}>" for byte in range(256))


def byte_pieces(model: Mapping[str, Any]) -> frozenset[str]:
    """The byte pieces if `model` (of a tokenizer.json) falls back to bytes, else none."""
    return _ALL if model.get("byte_fallback") else frozenset()
