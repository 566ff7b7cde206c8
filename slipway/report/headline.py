"""The first screen of the page: a sentence that answers the reader's question, and the figures behind it."""

from dataclasses import dataclass
from typing import Literal

from slipway.report import formatting
from slipway.report.evidence import Compression, Evidence, Training
from slipway.verdict import Objective, Verdict

State = Literal["met", "missed", "invalid", "plain"]

MARKS: dict[State, str] = {"met": "✓", "missed": "✗", "invalid": "!", "plain": ""}
"""Judgements carry a mark and a word besides their colour."""


@dataclass(frozen=True)
class Headline:
    """What the page says first. `state` picks mark and colour."""

    state: State
    title: str
    sentence: str

    @property
    def mark(self) -> str:
        """The sign beside the title."""
        return MARKS[self.state]


@dataclass(frozen=True)
class Tile:
    """One key figure; `note` puts it in its place."""

    label: str
    value: str
    unit: str
    note: str
    state: State = "plain"

    @property
    def mark(self) -> str:
        """The sign beside the value."""
        return MARKS[self.state]


def headline(evidence: Evidence) -> Headline:
    """The judgement of the last stage that has run."""
    if evidence.load:
        return load_headline(evidence.load.verdict)
    if evidence.compression:
        return _compression_headline(evidence.compression)
    assert evidence.training is not None  # noqa: S101  (gather refuses to be empty)
    return _training_headline(evidence.training)


def tiles(evidence: Evidence) -> list[Tile]:
    """The key figures, those that there is evidence for."""
    found: list[Tile] = []
    found += _quality_tiles(evidence)
    found += _size_tiles(evidence)
    if evidence.load:
        found += load_tiles(evidence.load.verdict)
    return found


def load_headline(verdict: Verdict) -> Headline:
    """Whether the objective was met."""
    rate = f"{formatting.rate(verdict.offered_rate)} requests/s"
    titles = {
        "met": f"Objective met at {rate}",
        "missed": f"Objective missed at {rate}",
        "invalid": f"Load test invalid at {rate}",
    }
    return Headline(verdict.outcome, titles[verdict.outcome], verdict.reason)


def load_tiles(verdict: Verdict) -> list[Tile]:
    """The p99 and the failures."""
    states = {objective.name: objective_state(verdict, objective) for objective in verdict.objectives}
    limit = verdict.latency_limits.get("p99")
    at = f"at {formatting.rate(verdict.offered_rate)} requests/s"
    allowed = f"{at} · at most {formatting.compact(limit)} ms" if limit else at
    of = f"of {formatting.whole(verdict.latency.requests)}, a wrong label counts"
    p99 = formatting.milliseconds(verdict.latency.p99)
    return [
        Tile("Latency p99", p99, "ms", allowed, states.get("p99_ms", "plain")),
        Tile("Failed requests", formatting.whole(verdict.failed), "", of, states.get("error_rate", "plain")),
    ]


def objective_state(verdict: Verdict, objective: Objective) -> State:
    """How one line of the objective is marked; an invalid run judges none."""
    return "invalid" if verdict.outcome == "invalid" else "met" if objective.met else "missed"


def _compression_headline(compression: Compression) -> Headline:
    chosen, reference = compression.chosen, compression.reference
    if chosen is None:
        return Headline("missed", "No variant passed the gate", "The table below says what each of them lost by.")
    times, faster = _pace(chosen.speedup)
    found = [
        f"{times}× {faster} than PyTorch" if chosen.latency_ms else "",
        _size(reference.bytes if reference else None, chosen.bytes),
        f"{formatting.points(-chosen.loss_points)} points of {formatting.metric_name(chosen.metric)} on dev",
    ]
    sentence = (
        f"Of {formatting.plural(len(compression.variants), 'variant')}, {chosen.name} is served: "
        f"{', '.join(filter(None, found))}. It has not been load-tested yet."
    )
    return Headline("met", "A variant passed the gate", sentence)


def _pace(speedup: float) -> tuple[str, str]:
    """How many times, and which way, beside PyTorch."""
    return (f"{speedup:.1f}", "faster") if speedup >= 1 else (f"{1 / speedup:.1f}", "slower")


def _size(dense: float | None, served: float | None, than: str = "") -> str:
    """Of what is served beside the dense model; empty if one is unknown."""
    factor, way = formatting.resized(dense, served)
    return f"{factor}× {way}{than}" if way else "" if factor == formatting.DASH else "as large as dense"


def _training_headline(training: Training) -> Headline:
    before, after = training.before, training.after
    if after is None:
        return Headline("plain", "Fine-tuned", "No figures on the test split were recorded.")
    gained = f", from {formatting.percent(before.accuracy)} before fine-tuning" if before else ""
    sentence = (
        f"Accuracy on test is {formatting.percent(after.accuracy)}{gained}; "
        f"always guessing the largest class gives {formatting.percent(after.majority_accuracy)}. "
        "It has been neither compressed nor load-tested yet."
    )
    return Headline("plain", "Fine-tuned", sentence)


def _quality_tiles(evidence: Evidence) -> list[Tile]:
    served, training = evidence.served, evidence.training
    if served is None:
        return []
    before = training.before if training else None
    after = training.after if training and evidence.compression and evidence.compression.test else None
    steps = [
        f"before {formatting.percent(before.accuracy)}" if before else "",
        f"dense {formatting.percent(after.accuracy)}" if after else "",
        f"majority class {formatting.percent(served.majority_accuracy)}",
    ]
    f1_steps = [
        f"before {formatting.score(before.macro_f1)}" if before else "",
        f"dense {formatting.score(after.macro_f1)}" if after else "",
        f"majority class {formatting.score(served.majority_macro_f1)}",
    ]
    accuracy = formatting.percent(served.accuracy).removesuffix("%")
    return [
        Tile("Accuracy on test", accuracy, "%", " · ".join(filter(None, steps))),
        Tile("Macro-F1 on test", formatting.score(served.macro_f1), "", " · ".join(filter(None, f1_steps))),
    ]


def _size_tiles(evidence: Evidence) -> list[Tile]:
    if evidence.compression is None:
        dense = evidence.dense_bytes
        return [Tile("Model size", formatting.megabytes(dense), "MB", "dense, as trained")] if dense else []
    served, dense = evidence.compression.model_bytes, evidence.dense_bytes
    compared = f"{_size(dense, served, ' than dense')}, {formatting.megabytes(dense)} MB"
    found = [Tile("Model size", formatting.megabytes(served), "MB", compared if dense else "as served")]
    chosen = evidence.compression.chosen
    if chosen and chosen.latency_ms:
        pace = f"{formatting.milliseconds(chosen.latency_ms.get('p50'))} ms, {chosen.name}"
        times, faster = _pace(chosen.speedup)
        found.append(Tile(f"{faster.capitalize()} than PyTorch", times, "×", pace))
    return found
