"""A tokenizer.json in today's form: older ones lack the model's type or write merges as text."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from slipway.errors import ExportError


def read_tokenizer(tokenizer: Mapping[str, Any] | Path) -> tuple[dict[str, Any], Any]:
    """The parsed tokenizer.json, and the `tokenizers.Tokenizer` of it that neither pads nor truncates.

    Raises `ExportError` if it can't be read.
    """
    from tokenizers import Tokenizer

    name = tokenizer if isinstance(tokenizer, Path) else "the tokenizer"
    try:
        text = tokenizer.read_text(encoding="utf-8") if isinstance(tokenizer, Path) else json.dumps(tokenizer)
        loaded = Tokenizer.from_str(text)
    except Exception as error:  # the Rust library raises bare exceptions
        raise ExportError(f"{name} can't be read as a tokenizer.json: {error}") from error
    parsed: dict[str, Any] = json.loads(loaded.to_str())
    if parsed["model"]["type"] == "Unigram":
        # The library reads scores with an error in the last digit; taken from its output, they would drift.
        parsed["model"]["vocab"] = json.loads(text)["model"]["vocab"]
    loaded.no_padding()
    loaded.no_truncation()
    return parsed, loaded
