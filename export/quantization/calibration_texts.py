"""Training texts that set the ranges of activations: never of dev, which judges, nor of test.

300 texts are what NNCF takes by default.
"""

from collections.abc import Sequence

import numpy as np

CALIBRATION_TEXTS = 300


def sample(texts: Sequence[str], count: int, seed: int) -> list[str]:
    """`count` of `texts`, drawn without replacement, in their order."""
    rows = np.random.default_rng(seed).permutation(len(texts))[:count]
    return [texts[row] for row in sorted(rows.tolist())]
