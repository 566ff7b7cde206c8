"""Long texts: cut without a trace in the tokens, or read on in windows that leave nothing out."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from slipway.bundle import TOKENIZER, Bundle
from slipway.encoder import Encoder, Windows
from slipway.errors import ServingError
from tests.tiny_bundle import MAX_TOKENS, write_tiny_bundle

pytestmark = [pytest.mark.unit]

ROOM = MAX_TOKENS - 2
WORDS = st.sampled_from(["good", "坏", "好的", "👍", "it's", "e\u0301", "x" * 150, "unknown", "\u3000", "\n", ""])
SEPARATORS = st.sampled_from([" ", "", "\n", "  "])


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_tiny_bundle(tmp_path_factory.mktemp("tiny") / "bundle")


def whole(bundle: Bundle, text: str) -> list[int]:
    """All tokens of the text, without special ones."""
    plain = Tokenizer.from_file(str(bundle.path / TOKENIZER))
    ids: list[int] = plain.encode(text, add_special_tokens=False).ids
    return ids


def encoder(bundle: Bundle, windows: Windows) -> Encoder:
    return Encoder(bundle.path / TOKENIZER, bundle.spec.tokenization, windows=windows)


@settings(max_examples=40, deadline=None)
@given(words=st.lists(WORDS, min_size=1, max_size=12), separator=SEPARATORS)
def test_the_tokens_of_a_huge_text_are_those_of_the_whole_text(
    bundle: Bundle, words: list[str], separator: str
) -> None:
    text = separator.join(words * 600)
    plain = Tokenizer.from_file(str(bundle.path / TOKENIZER))
    plain.enable_truncation(max_length=MAX_TOKENS)
    encoded = Encoder(bundle.path / TOKENIZER, bundle.spec.tokenization)([text])
    assert encoded["input_ids"][0].tolist() == plain.encode(text).ids


@settings(max_examples=60, deadline=None)
@given(
    words=st.lists(WORDS, min_size=1, max_size=12),
    separator=SEPARATORS,
    repeats=st.sampled_from([1, 8, 40, 900]),
    most=st.integers(1, 9),
    stride=st.integers(0, ROOM - 1),
)
def test_windows_hold_every_token_in_order_and_share_the_stride(
    bundle: Bundle, words: list[str], separator: str, repeats: int, most: int, stride: int
) -> None:
    text = separator.join(words * repeats)
    everything = whole(bundle, text)
    [row] = encoder(bundle, Windows(most, stride)).rows([text])
    assert 1 <= len(row.windows) <= most
    read: list[int] = []
    for number, (window, new) in enumerate(zip(row.windows, row.new_tokens, strict=True)):
        content = window.ids[1:-1]
        assert len(window) <= MAX_TOKENS
        assert number == 0 or new > 0
        assert number == 0 or content[:stride] == read[len(read) - stride :]
        read += content[len(content) - new :]
    assert read == everything[: len(read)]
    assert row.truncated == (len(read) < len(everything))
    assert row.truncated or row.tokens == len(everything) + 2
    if row.truncated:
        assert len(row.windows) == most
        assert row.tokens > MAX_TOKENS


@pytest.mark.parametrize("tokens", [ROOM - 1, ROOM, ROOM + 1])
def test_only_a_text_that_is_too_long_is_truncated(bundle: Bundle, tokens: int) -> None:
    [row] = encoder(bundle, Windows()).rows(["the " * tokens])
    assert row.truncated == (tokens > ROOM)
    assert row.tokens == tokens + 2


def test_a_text_is_the_same_whatever_is_tokenized_with_it(bundle: Bundle) -> None:
    texts = ["good", "the " * 5000, "坏", "bad " * 9000, ""]
    encode = encoder(bundle, Windows(3, 10))
    for text, row in zip(texts, encode.rows(texts), strict=True):
        [alone] = encode.rows([text])
        assert [window.ids for window in row.windows] == [window.ids for window in alone.windows]


def test_windows_must_move_on(bundle: Bundle) -> None:
    with pytest.raises(ServingError, match=f"choose at most {ROOM - 1}"):
        encoder(bundle, Windows(4, ROOM))
