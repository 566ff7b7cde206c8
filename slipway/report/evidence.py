"""Evidence: what the artifacts of a run say, typed.

Files inside an artifact are read tolerantly (a missing key is a dash on the page): the report of an old run
must not depend on what a newer stage has come to write. Numbers that are missing are NaN in here and never
leave `formatting`."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from slipway.artifacts import Artifact
from slipway.bundle import BundleSpec, Variant
from slipway.timeline import Timeline
from slipway.verdict import Verdict

FloatArray = npt.NDArray[np.float64]

REFERENCE = "pytorch"
"""Name of the dense checkpoint's row in a frontier."""


@dataclass(frozen=True)
class ClassScore:
    """One class of a class report; `support` is its number of rows."""

    label: str
    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True)
class Quality:
    """How well a model labels one split."""

    rows: int
    accuracy: float
    macro_f1: float
    mcc: float
    ece: float
    loss: float
    majority_accuracy: float
    classes: tuple[ClassScore, ...]
    confusion: tuple[tuple[int, ...], ...]
    """`confusion[true][predicted]`, in the order of `classes`."""

    @classmethod
    def parse(cls, metrics: dict[str, Any] | None) -> "Quality | None":
        """From the dict of `slipway.tasks.metrics.classification_metrics`."""
        if not metrics:
            return None
        return cls(
            rows=int(metrics.get("rows", 0)),
            **{
                name: number(metrics.get(name))
                for name in ("accuracy", "macro_f1", "mcc", "ece", "loss", "majority_accuracy")
            },
            classes=tuple(
                ClassScore(
                    label,
                    number(score.get("precision")),
                    number(score.get("recall")),
                    number(score.get("f1")),
                    int(score.get("support", 0)),
                )
                for label, score in (metrics.get("classes") or {}).items()
            ),
            confusion=tuple(tuple(int(n) for n in row) for row in metrics.get("confusion") or ()),
        )

    @property
    def majority_macro_f1(self) -> float:
        """Macro-F1 of always answering the largest class: its F1 is 2a/(1+a), every other class's is 0."""
        seen = sum(score.support > 0 for score in self.classes)
        share = self.majority_accuracy
        return 2 * share / (1 + share) / seen if seen else math.nan

    @property
    def margin(self) -> float:
        """Half the width of the 95% Wilson interval of `accuracy` (1927): what so many rows can resolve."""
        if not self.rows or math.isnan(self.accuracy):
            return math.nan
        z, n, p = 1.96, self.rows, self.accuracy
        return z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))


@dataclass(frozen=True)
class Evaluation:
    """Dev figures at one step of training."""

    step: int
    epoch: float
    loss: float
    scores: dict[str, float]
    """accuracy, macro_f1, mcc and ece, those that were recorded."""


@dataclass(frozen=True)
class History:
    """The course of a fine-tuning. `steps`, `losses` and `rates` run in parallel, one entry a logged step."""

    metric: str
    best_step: int | None
    steps: FloatArray
    losses: FloatArray
    rates: FloatArray
    evaluations: tuple[Evaluation, ...]
    stopped_early: bool
    seconds: float
    precision: str

    @classmethod
    def parse(cls, value: dict[str, Any]) -> "History":
        """From the content of `history.json`."""
        steps = value.get("steps") or []
        best = value.get("best_step")
        return cls(
            metric=str(value.get("metric", "macro_f1")),
            best_step=int(best) if best is not None else None,
            steps=_numbers(steps, "step"),
            losses=_numbers(steps, "loss"),
            rates=_numbers(steps, "learning_rate"),
            evaluations=tuple(
                Evaluation(
                    step=int(row.get("step", 0)),
                    epoch=number(row.get("epoch")),
                    loss=number(row.get("loss")),
                    scores={name: number(row[name]) for name in ("accuracy", "macro_f1", "mcc", "ece") if name in row},
                )
                for row in value.get("evaluations") or []
            ),
            stopped_early=bool(value.get("stopped_early", False)),
            seconds=number(value.get("seconds")),
            precision=str(value.get("precision", "")),
        )

    @property
    def best(self) -> Evaluation | None:
        """The evaluation whose weights were kept."""
        return next((row for row in self.evaluations if row.step == self.best_step), None)


@dataclass(frozen=True)
class Split:
    """One split of the table: rows, and rows of each label."""

    name: str
    rows: int
    labels: dict[str, int]

    def share(self, label: str) -> float:
        """Share of this split's rows that have `label`."""
        return self.labels.get(label, 0) / self.rows if self.rows else 0.0


@dataclass(frozen=True)
class DataSummary:
    """What became of the table."""

    rows_read: int | None
    removed: dict[str, int]
    """Why rows are not in any split, in words → how many."""
    kinds: dict[str, str]
    """How each split came about: stratified, chronological or given."""
    splits: tuple[Split, ...]

    @classmethod
    def parse(cls, value: dict[str, Any]) -> "DataSummary":
        """From the content of `data.json`; any count at its top is taken for rows that were removed."""
        dropped = value.get("rows_dropped") or value.get("dropped") or {}
        removed = {str(why): int(n) for why, n in dropped.items()} if isinstance(dropped, dict) else {}
        removed |= {name: n for name, n in value.items() if type(n) is int and name not in ("rows_read", "seed")}
        splits = _splits(value)
        kind = value.get("kind") or {}
        return cls(
            rows_read=_whole(value.get("rows_read")),
            removed={why.replace("_", " "): n for why, n in removed.items() if n or why == "duplicates_removed"},
            kinds=kind if isinstance(kind, dict) else {split.name: str(kind) for split in splits},
            splits=splits,
        )

    @property
    def given(self) -> list[str]:
        """Names of the splits that the source had already made."""
        return [name for name, kind in self.kinds.items() if kind == "given"]

    @property
    def labels(self) -> list[str]:
        """Every label, in the order of the first split that has it."""
        return list(dict.fromkeys(label for split in self.splits for label in split.labels))


@dataclass(frozen=True)
class Training:
    """What a checkpoint says. `before` and `after` fine-tuning are on the test split."""

    artifact: Artifact
    before: Quality | None
    after: Quality | None
    history: History | None
    data: DataSummary | None

    @property
    def model_bytes(self) -> int:
        """Size of the weights as saved."""
        files = self.artifact.manifest.files.items()
        return sum(record.bytes for name, record in files if name.endswith(".safetensors"))


@dataclass(frozen=True)
class Compression:
    """What a bundle says. `test` is the chosen variant's quality on the test split."""

    artifact: Artifact
    spec: BundleSpec
    variants: tuple[Variant, ...]
    test: Quality | None
    agreement: float
    """Share of test texts that get the dense checkpoint's label."""

    @property
    def chosen(self) -> Variant | None:
        """The variant that is served."""
        return next((variant for variant in self.variants if variant.chosen), None)

    @property
    def reference(self) -> Variant | None:
        """The dense checkpoint in PyTorch, measured in the same run."""
        return next((variant for variant in self.variants if variant.name == REFERENCE), None)

    @property
    def model_bytes(self) -> int:
        """Size of the model that is served."""
        if self.chosen is not None:
            return self.chosen.bytes
        return max((record.bytes for record in self.artifact.manifest.files.values()), default=0)


@dataclass(frozen=True)
class Load:
    """What a verdict says; `timeline` is None if it kept none."""

    artifact: Artifact
    verdict: Verdict
    timeline: Timeline | None


@dataclass(frozen=True)
class Evidence:
    """Everything that a report is made of; `notes` are what its reader has to know about what is missing."""

    training: Training | None = None
    compression: Compression | None = None
    load: Load | None = None
    notes: tuple[str, ...] = ()

    @property
    def artifacts(self) -> list[Artifact]:
        """The artifacts that there are, from data to service."""
        parts = (self.training, self.compression, self.load)
        return [part.artifact for part in parts if part is not None]

    @property
    def checkpoint(self) -> Artifact | None:
        """The checkpoint, if there is one."""
        return self.training.artifact if self.training else None

    @property
    def bundle(self) -> Artifact | None:
        """The bundle, if there is one."""
        return self.compression.artifact if self.compression else None

    @property
    def verdict(self) -> Artifact | None:
        """The load test's verdict, if there is one."""
        return self.load.artifact if self.load else None

    @property
    def name(self) -> str:
        """The run's name."""
        return self.artifacts[-1].manifest.name

    @property
    def recipe(self) -> dict[str, Any]:
        """The recipe, put together from the sections that each stage recorded."""
        merged: dict[str, Any] = {}
        for artifact in self.artifacts:
            merged.update(artifact.manifest.recipe)
        return merged

    def setting(self, section: str, key: str, default: Any = None) -> Any:
        """One value of the recipe, `default` where the section was not recorded."""
        found = self.recipe.get(section)
        return found.get(key, default) if isinstance(found, dict) else default

    @property
    def dense_bytes(self) -> int:
        """Size of the model before compression; 0 if nobody recorded it."""
        if self.training and self.training.model_bytes:
            return self.training.model_bytes
        reference = self.compression.reference if self.compression else None
        return reference.bytes if reference else 0

    @property
    def served(self) -> Quality | None:
        """Quality on test of the model as it would be served: compressed if it was, else as trained."""
        if self.compression and self.compression.test:
            return self.compression.test
        return self.training.after if self.training else None


def _numbers(rows: list[dict[str, Any]], key: str) -> FloatArray:
    return np.array([number(row.get(key)) for row in rows], dtype=np.float64)


def _splits(value: dict[str, Any]) -> tuple[Split, ...]:
    """Splits from `{"splits": {name: {"rows", "labels"}}}` or from `{"rows": {name}, "labels": {name}}`."""
    nested = value.get("splits")
    if not isinstance(nested, dict):
        rows, labels = value.get("rows") or {}, value.get("labels") or {}
        nested = {name: {"rows": count, "labels": labels.get(name)} for name, count in rows.items()}
    splits = []
    for name, split in nested.items():
        counts = {str(label): int(n) for label, n in (split.get("labels") or {}).items()}
        splits.append(Split(str(name), int(split.get("rows") or sum(counts.values())), counts))
    return tuple(splits)


def number(value: Any) -> float:
    """`value` as a float, NaN if it is missing or not a finite number."""
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else math.nan


def _whole(value: Any) -> int | None:
    return int(value) if isinstance(value, (int, float)) and math.isfinite(value) else None
