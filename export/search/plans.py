"""What a search tries, by effort: which structures, and which precisions of each on which engine.

Data only, so that a search can be read, counted and resumed before anything runs.

A structure is a model: `dense`, the checkpoint as it is, or a student that was cut out of it and distilled. With effort
`full` students come in a chain, each cut from the one before: one large cut loses more than several with recovery
between them (Zhu & Gupta 2017), and every link is a model that may be chosen. It ends where a dev split of a few
thousand rows can still tell a loss of a point from luck. `quick` has time for one student, and a
student gains more from two further epochs than from a step on the way: MiniLM at 23 % of its computation loses nothing
after three epochs, at 30 % 1.9 points after one. Where every student of a chain has lost too much, one that is cut less
deep is tried after it (`larger`): between the smallest students and the dense model in int8 lies a factor of three, and
how much of itself a checkpoint can spare is not known before.

Work is bounded by operations, not by seconds: the same recipe gives the same models on a slow machine, later. `quick`
spends about two minutes of two cores on training MiniLM-sized students of 20,000 short texts, `full` about twelve. A
larger table is distilled from a sample of it, and a larger model takes at least a pass over that.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from slipway.bundle import EngineName
from slipway.recipe import Export

if TYPE_CHECKING:
    from export.quantization import Quantizer

DENSE = "dense"

_SHORT = {"onnxruntime": "ort", "openvino": "ov"}


@dataclass(frozen=True)
class Cut:
    """One link of a chain: cut the model before it down, then let it recover.

    `compute` is the share of the dense encoder's multiply-adds per token that stays, `layers` the share of its layers.
    `operations` bounds the recovery: floating-point operations of forward and backward passes; 0 does without.
    """

    name: str
    compute: float
    layers: float
    operations: float
    prune_vocabulary: bool = False


@dataclass(frozen=True)
class Precision:
    """A quantizer by its name in `export.quantization`, and the engine that is to run its file."""

    quantizer: str
    engine: EngineName

    @property
    def name(self) -> str:
        """For example `int8-static@ov`."""
        return f"{self.quantizer}@{_SHORT[self.engine]}"


@dataclass(frozen=True)
class Trial:
    """One variant to make: a structure at a precision on an engine."""

    structure: str
    precision: Precision

    @property
    def name(self) -> str:
        """For example `c25-int8-static@ov`; the dense structure goes without saying."""
        prefix = "" if self.structure == DENSE else f"{self.structure}-"
        return prefix + self.precision.name


_QUICK = (Cut("c20", 0.20, 0.67, 2.6e13),)
_FULL = (
    Cut("c30", 0.30, 0.67, 3.0e13),
    Cut("c20", 0.20, 0.67, 4.0e13),
    Cut("c15", 0.15, 0.50, 5.0e13),
)
_LARGER = {
    "quick": Cut("c40", 0.40, 0.67, 4.0e13),
    "full": Cut("c50", 0.50, 0.84, 6.0e13),
}
VOCABULARY = "vocabulary"
"""The dense model with the domain's tokens only."""
TEACHING = {"quick": 4e13, "full": 2e14}
"""Floating-point operations that the dense model is asked for, which bounds how many texts students learn from."""


def cuts(section: Export) -> tuple[Cut, ...]:
    """The chain of students of a search, the largest first.

    A vocabulary is pruned before anything else, so that all students learn with the tokens that they will have: taken
    from a finished student, the tokens cost a point that a little training didn't bring back. The dense model is not
    trained for it, which would take longer than all students together; its variants say what the tokens are worth.
    """
    chain = {"quantize": (), "quick": _QUICK, "full": _FULL}[section.effort]
    if section.vocabulary == "keep":
        return chain
    pruned = Cut(VOCABULARY, 1.0, 1.0, 0.0, prune_vocabulary=True)
    return (pruned, *map(_with_pruned_vocabulary, chain))


def larger(section: Export) -> Cut | None:
    """The student to try where each of `cuts` has lost too much, cut from what the first of them was cut from."""
    cut = _LARGER.get(section.effort)
    if cut is None or section.vocabulary == "keep":
        return cut
    return _with_pruned_vocabulary(cut)


def _with_pruned_vocabulary(cut: Cut) -> Cut:
    return replace(cut, name=f"{cut.name}v")


def trials(section: Export, structure: str, quantizers: Mapping[str, "Quantizer"]) -> list[Trial]:
    """The variants of `structure` that the effort asks for, on those engines of the recipe that suit each quantizer."""
    return [
        Trial(structure, Precision(name, engine))
        for name in _quantizers(section, structure)
        for engine in quantizers[name].engines
        if engine in section.engines and (section.target == "cpu" or engine == "onnxruntime")
    ]


def _quantizers(section: Export, structure: str) -> list[str]:
    if section.target == "gpu":
        return ["fp32", "fp16", "int8-tensorrt"]
    chosen = {DENSE: _DENSE, VOCABULARY: _DENSE_PRUNED}.get(structure, _STUDENT)[section.effort]
    if section.max_size_mb is not None and _SMALLEST not in chosen:
        return [*chosen, _SMALLEST]
    return chosen


_DENSE = {
    "quantize": ["fp32", "int8-dynamic", "int8-static"],
    "quick": ["fp32", "int8-dynamic", "int8-static"],
    "full": [
        "fp32",
        "int8-dynamic",
        "int8-static",
        "int8-static-e4",
        "int8-nncf",
        "int8-minmax",
        "int8-mixed",
        "w8",
        "w4",
    ],
}
_DENSE_PRUNED = {
    "quantize": ["int8-dynamic", "int8-static"],
    "quick": ["int8-static"],
    "full": ["int8-static"],
}
_STUDENT = {
    "quantize": [],
    "quick": ["int8-dynamic-e4", "int8-static-e4"],
    "full": ["int8-dynamic-e4", "int8-static-e4"],
}
"""Embeddings in 4 bits cost a student nothing: it has learned with them (`export.search.students`)."""
_SMALLEST = "int8-static-e4"
"""Also tried of the dense model where a size is asked for."""
