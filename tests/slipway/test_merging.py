"""One answer from the windows of a long text."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from slipway.tasks import get_task
from slipway.tasks.metrics import softmax

pytestmark = [pytest.mark.unit]

TASK = get_task("sequence-classification")
LOGITS = npst.arrays(np.float32, st.tuples(st.integers(1, 6), st.integers(2, 5)), elements=st.floats(-20, 20, width=32))


@given(logits=LOGITS, temperature=st.floats(0.5, 3), data=st.data())
def test_probabilities_are_the_mean_by_new_tokens(logits: np.ndarray, temperature: float, data: st.DataObject) -> None:
    new = data.draw(st.lists(st.integers(1, 500), min_size=len(logits), max_size=len(logits)))
    merged = softmax(TASK.merge(logits, new, temperature)[None], temperature)[0]
    expected = np.average(softmax(logits, temperature), axis=0, weights=new)
    np.testing.assert_allclose(merged, expected, atol=1e-5)


@given(logits=LOGITS)
def test_a_text_of_one_window_keeps_its_logits(logits: np.ndarray) -> None:
    np.testing.assert_array_equal(TASK.merge(logits[:1], [7], 1.3), logits[0])


def test_one_window_that_is_sure_beyond_reason_does_not_outvote_the_text() -> None:
    logits = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 30.0]], dtype=np.float32)
    assert TASK.merge(logits, [126, 94, 3], 1.0).argmax() == 0
