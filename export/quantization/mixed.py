"""Mixed precision: the few products that hurt stay fp32, and which these are is measured, not guessed.

A group is the products that read the same activation: queries, keys and values; the attention's output; either half
of the feed-forward block. With everything in int8, each group in turn is given back its fp32 weights, and the
Kullback-Leibler divergence of the class probabilities from the fp32 model's says what it was to blame for. The
opposite (quantize one group alone) is as cheap, but misses that errors compound.

Prices on MiniLM: a session and a pass over some `TEXTS` texts for each of 25 groups, 10 s; and for a third of the
divergence that was left, 3 to 7 MB and 11 % of the speed on OpenVINO, 20 % on ONNX Runtime (32×32, one thread). Worth
it when a budget is missed by little, not by default.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from export.quantization.bias import round_biases
from export.quantization.embeddings import compress_tables
from export.quantization.products import FloatArray
from export.quantization.ranges import Batch
from export.quantization.static import Calibrated, calibrate
from slipway.engines.onnxruntime import opened, session_options
from slipway.tasks.metrics import softmax

TEXTS = 64
"""Calibration texts that sensitivity is measured on."""

TOLERANCE = 0.5
"""The default stops when the divergence is at most this share of that of the model with everything in int8."""


@dataclass(frozen=True)
class Sensitivity:
    """A group of products and the divergence (nats a text) that is left when everything but this group is int8."""

    nodes: tuple[str, ...]
    divergence: float


@dataclass(frozen=True)
class Ranking:
    """Groups, the most harmful first, and the divergence with all of them in int8."""

    divergence: float
    groups: tuple[Sensitivity, ...]

    def first(self, count: int) -> frozenset[str]:
        """Nodes of the `count` most harmful groups: a `keep` for any quantizer."""
        return frozenset(node for group in self.groups[:count] for node in group.nodes)


def rank(calibrated: Calibrated, calibration: Sequence[Batch]) -> Ranking:
    """Measure every group of the products of `calibrated` on some texts of `calibration`."""
    texts = _some_texts(calibration)
    exact = _logits(calibrated.proto, texts)
    groups: dict[str, list[str]] = {}
    for product in calibrated.found:
        groups.setdefault(product.activation, []).append(product.node)
    measured = [
        Sensitivity(tuple(nodes), divergence(exact, _logits(calibrated.quantized(nodes), texts)))
        for nodes in groups.values()
    ]
    whole = divergence(exact, _logits(calibrated.quantized(), texts))
    return Ranking(whole, tuple(sorted(measured, key=lambda group: group.divergence)))


def choose_keep(
    model: Path, calibration: Sequence[Batch], *, count: int | None = None, tolerance: float = TOLERANCE
) -> frozenset[str]:
    """Names of the nodes of `model` to leave in fp32: those of the `count` worst groups, or the fewest that are enough.

    Enough is a divergence of at most `tolerance` of that with everything in int8. Raises `ExportError` if there are no
    calibration texts.
    """
    calibrated = calibrate(model, calibration)
    compress_tables(calibrated.proto, 8)  # half the bytes that each trial copies
    return _choose(calibrated, calibration, count, tolerance)


def quantize(model: Path, out: Path, calibration: Sequence[Batch], *, keep: Collection[str] = ()) -> Path:
    """Write the static int8 form of `model` to `out` with the fewest groups in fp32 that halve its divergence.

    Raises `ExportError` if there are no calibration texts.
    """
    import onnx

    calibrated = calibrate(model, calibration, keep=keep)
    compress_tables(calibrated.proto, 8)  # half the bytes that each trial copies
    proto = calibrated.quantized(_choose(calibrated, calibration, None, TOLERANCE))
    round_biases(proto, calibrated.proto, calibrated.found)
    onnx.save(proto, str(out))
    return out


def divergence(exact: FloatArray, approximate: FloatArray) -> float:
    """Mean Kullback-Leibler divergence in nats between the classes' probabilities; logits `[texts, labels]` each."""
    p, q = softmax(exact).astype(np.float64), softmax(approximate).astype(np.float64)
    return float((p * (np.log(np.maximum(p, 1e-12)) - np.log(np.maximum(q, 1e-12)))).sum(1).mean())


def _choose(
    calibrated: Calibrated, calibration: Sequence[Batch], count: int | None, tolerance: float
) -> frozenset[str]:
    ranking = rank(calibrated, calibration)
    if count is not None:
        return ranking.first(count)
    texts = _some_texts(calibration)
    exact = _logits(calibrated.proto, texts)
    # Bisection: more groups in fp32 diverge less, all of them not at all.
    low, high = 0, len(ranking.groups)
    while low < high:
        middle = (low + high) // 2
        left = divergence(exact, _logits(calibrated.quantized(ranking.first(middle)), texts))
        low, high = (low, middle) if left <= tolerance * ranking.divergence else (middle + 1, high)
    return ranking.first(low)


def _some_texts(calibration: Sequence[Batch]) -> list[dict[str, npt.NDArray[np.int64]]]:
    """About `TEXTS` rows, evenly from all batches: these may be sorted by length, or of one text each."""
    rows = sum(len(next(iter(batch.values()))) for batch in calibration)
    step = max(1, rows // TEXTS)
    chosen = []
    passed = 0
    for batch in calibration:
        count = len(next(iter(batch.values())))
        first = -passed % step
        if first < count:
            chosen.append({name: values[first::step] for name, values in batch.items()})
        passed += count
    return chosen


def _logits(proto: Any, texts: Sequence[Batch]) -> FloatArray:
    session = opened(proto.SerializeToString(), session_options(0))  # as many threads as there are cores
    names = [value.name for value in session.get_inputs()]
    return np.concatenate([session.run(["logits"], {name: batch[name] for name in names})[0] for batch in texts])
