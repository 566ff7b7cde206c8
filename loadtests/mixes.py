"""Which text comes when: mixes of the texts that there are.

A mix is a function that makes `take(count)`, which gives the rows of the next `count` texts, and one line in `_MIXES`.

A response cache flatters a server whose texts come again and again; so does a load test's small file of texts. With
`cache-busting` nothing comes twice before `distinct` others came, and then always in the same order, which is the worst
case of a cache that keeps the most recent. Hot keys are the other side: what does the cache gain for traffic that is
like most traffic (Breslau et al., *Web Caching and Zipf-like Distributions*, INFOCOM 1999)?
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from slipway.recipe.traffic import HotKeys, Mix

IntArray = npt.NDArray[np.int32]
Take = Callable[[int], IntArray]


def natural(order: np.random.Generator, ranks: np.random.Generator, texts: int, section: Any) -> Take:  # noqa: ARG001
    """Every text once in random order, then again in another: none comes twice before all have come."""
    rest = np.empty(0, dtype=np.int32)

    def take(count: int) -> IntArray:
        nonlocal rest
        rounds = [rest]
        for _ in range(-(-max(count - len(rest), 0) // texts)):
            rounds.append(order.permutation(texts).astype(np.int32))
        drawn = np.concatenate(rounds)
        rest = drawn[count:]
        return drawn[:count]

    return take


def in_turn(order: np.random.Generator, ranks: np.random.Generator, texts: int, section: Any) -> Take:  # noqa: ARG001
    """One after the other, round and round."""
    sent = 0

    def take(count: int) -> IntArray:
        nonlocal sent
        rows = (sent + np.arange(count, dtype=np.int64)) % texts
        sent += count
        return rows.astype(np.int32)

    return take


def hot_keys(order: np.random.Generator, ranks: np.random.Generator, texts: int, section: HotKeys) -> Take:
    """Zipf: the text of rank k with a probability in proportion to k^-exponent; ranks are dealt at random."""
    weights = np.arange(1, texts + 1, dtype=np.float64) ** -section.exponent
    below = np.cumsum(weights) / weights.sum()
    dealt = ranks.permutation(texts).astype(np.int32)

    def take(count: int) -> IntArray:
        chosen: IntArray = dealt[np.minimum(np.searchsorted(below, order.random(count), side="right"), texts - 1)]
        return chosen

    return take


_MIXES: dict[str, Callable[[np.random.Generator, np.random.Generator, int, Any], Take]] = {
    "natural": natural,
    "cache-busting": in_turn,
    "hot-keys": hot_keys,
}


def make_mix(section: Mix, order: np.random.Generator, ranks: np.random.Generator, texts: int) -> Take:
    """`take(count)` for the recipe's mix over `texts` texts."""
    return _MIXES[section.mix](order, ranks, texts, section)
