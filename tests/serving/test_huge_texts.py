"""A huge text is cut before it is tokenized, and nobody can tell from the tokens."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from slipway.bundle import TOKENIZER, Bundle
from slipway.predictor import Encoder
from tests.tiny_bundle import MAX_TOKENS

pytestmark = [pytest.mark.unit]

WORDS = st.sampled_from(["good", "坏", "好的", "👍", "it's", "e\u0301", "x" * 150, "unknown", "\u3000", "\n", ""])


@settings(max_examples=40, deadline=None)
@given(words=st.lists(WORDS, min_size=1, max_size=12), separator=st.sampled_from([" ", "", "\n", "  "]))
def test_the_tokens_are_those_of_the_whole_text(bundle: Bundle, words: list[str], separator: str) -> None:
    text = separator.join(words * 600)
    plain = Tokenizer.from_file(str(bundle.path / TOKENIZER))
    plain.enable_truncation(max_length=MAX_TOKENS)
    encoded = Encoder(bundle.path / TOKENIZER, bundle.spec.tokenization)([text])
    assert encoded["input_ids"][0].tolist() == plain.encode(text).ids
