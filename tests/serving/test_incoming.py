"""What is wrong with a request is said with its row, and never repeats the text."""

from typing import Any

import numpy as np
import pytest

from serving.model.incoming import read_texts
from serving.model.refusals import RefusedError
from tests.serving.fake_triton import column

pytestmark = [pytest.mark.unit]


def test_texts_are_decoded_in_order() -> None:
    assert read_texts(column(b"a", "好")) == ["a", "好"]


@pytest.mark.parametrize(
    ("values", "why"),
    [
        (column(b"a", b"\xe5\xa5"), r"row 1: the text is not valid UTF-8 \(byte 0 is 0xe5\)"),
        (column(b"ok\xff"), r"row 0: .* \(byte 2 is 0xff\)"),
        (column(b"\xed\xa0\x80"), "row 0: the text is not valid UTF-8"),
        (column(b""), "row 0: the text is empty"),
        (column(b"a", b" \n"), "row 1: the text is blank"),
        (column(b"a", "\u3000\u2003"), "row 1: the text is blank"),
        (np.array([b"a"], dtype=np.object_), r"shape \[1\]; it must be \[rows, 1\]"),
        (np.array([[b"a", b"b"]], dtype=np.object_), r"shape \[1, 2\]"),
        (np.array([[1.0]], dtype=np.float32), "row 0: input 'text' must be of type BYTES"),
    ],
)
def test_a_row_that_is_wrong_is_named_with_the_reason(values: np.ndarray[Any, Any], why: str) -> None:
    with pytest.raises(RefusedError, match=why) as caught:
        read_texts(values)
    assert caught.value.kind == "bad_text"


def test_a_reason_never_repeats_the_text() -> None:
    with pytest.raises(RefusedError) as caught:
        read_texts(column(b"secret \xff"))
    assert "secret" not in str(caught.value)
