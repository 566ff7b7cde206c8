"""What of a tokenizer's output a model takes: a BERT's tokenizer gives token types, and a DistilBERT has none."""

import inspect
from collections.abc import Mapping
from typing import Any, TypeVar

Value = TypeVar("Value")


def taken_by(model: Any, given: Mapping[str, Value]) -> dict[str, Value]:
    """The entries of `given` that `model.forward` has a parameter for."""
    takes = inspect.signature(model.forward).parameters
    return {name: value for name, value in given.items() if name in takes}
