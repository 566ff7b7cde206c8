"""What of a tokenizer's output a model takes: a BERT's tokenizer gives token types, and a DistilBERT has none.

GPT-2 has a parameter for token types, but no embeddings of them: it would look them up among its words and add those to
every token. Its own tokenizer gives none, others that it is trained with do, and an exported graph has no such input.
"""

import inspect
from collections.abc import Mapping
from typing import Any, TypeVar

Value = TypeVar("Value")


def inputs_of(model: Any) -> set[str]:
    """What may be given to `model.forward`."""
    names = set(inspect.signature(model.forward).parameters)
    return names if getattr(model.config, "type_vocab_size", 0) else names - {"token_type_ids"}


def taken_by(model: Any, given: Mapping[str, Value]) -> dict[str, Value]:
    """The entries of `given` that `model` takes."""
    takes = inputs_of(model)
    return {name: value for name, value in given.items() if name in takes}
