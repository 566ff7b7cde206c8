"""A model is given what it takes of a tokenizer's output, and nothing that it would take for something else."""

import pytest

from slipway.inputs import taken_by
from tests.tiny_classifiers import tiny_classifier

pytestmark = pytest.mark.unit

GIVEN = {"input_ids": 1, "attention_mask": 2, "token_type_ids": 3, "special_tokens_mask": 4}


@pytest.mark.parametrize(("name", "types"), [("bert", True), ("distilbert", False), ("gpt2", False), ("llama", False)])
def test_token_types_are_for_models_that_have_embeddings_of_them(name: str, types: bool) -> None:
    wanted = {"input_ids", "attention_mask"} | ({"token_type_ids"} if types else set())
    assert set(taken_by(tiny_classifier(name), GIVEN)) == wanted
