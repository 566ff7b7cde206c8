"""Which text comes when."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtests.mixes import Take, make_mix
from slipway.recipe import LoadTest
from slipway.recipe.traffic import CacheBusting, HotKeys, Natural

pytestmark = pytest.mark.unit


def mix(section: Natural | CacheBusting | HotKeys, texts: int, seed: int = 0) -> Take:
    return make_mix(section, np.random.default_rng(seed), np.random.default_rng(seed + 1), texts)


@given(st.integers(1, 50), st.lists(st.integers(0, 120), min_size=1, max_size=6))
def test_no_text_comes_twice_before_all_have_come_however_they_are_taken(texts: int, counts: list[int]) -> None:
    take = mix(Natural(), texts)
    rows = np.concatenate([take(count) for count in counts])
    assert len(rows) == sum(counts)
    for start in range(0, len(rows) - texts + 1, texts):
        assert sorted(rows[start : start + texts]) == list(range(texts))


def test_hot_keys_follow_zipfs_law() -> None:
    counts = np.sort(np.bincount(mix(HotKeys(exponent=1.0), 1000)(200_000), minlength=1000))[::-1]
    expected = 1 / np.arange(1, 1001) / (1 / np.arange(1, 1001)).sum()
    np.testing.assert_allclose(counts[:5] / 200_000, expected[:5], rtol=0.1)
    assert counts[:10].sum() / 200_000 == pytest.approx(expected[:10].sum(), rel=0.05)


def test_another_seed_makes_other_texts_hot() -> None:
    hottest = {int(np.bincount(mix(HotKeys(), 500, seed)(5000)).argmax()) for seed in range(0, 20, 2)}
    assert len(hottest) > 5


def test_cache_busting_texts_come_in_turn() -> None:
    take = mix(CacheBusting(), 5)
    assert np.concatenate([take(3), take(4)]).tolist() == [0, 1, 2, 3, 4, 0, 1]


def test_a_mix_can_be_named_without_a_section() -> None:
    assert LoadTest.model_validate({"traffic": "hot-keys"}).traffic == HotKeys()
