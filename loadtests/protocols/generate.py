"""Triton's `generate` endpoint: flat JSON in, flat JSON out, one text a request."""

from collections.abc import Sequence
from typing import Any

from loadtests.protocols.client import Answer
from loadtests.protocols.http import HttpClient


class GenerateClient(HttpClient):
    """POST …/generate."""

    method = "generate"

    def body(self, texts: Sequence[str]) -> Any:
        """The request's JSON; the recipe allows a single text only."""
        (text,) = texts
        return {"text": text}

    def answer(self, content: Any, texts: int) -> Answer:  # noqa: ARG002
        """Triton writes an output of one value bare, and one of several as a list."""
        label = content["label"]
        return Answer([str(label[0] if isinstance(label, list) else label)], str(content.get("model_version", "")))
