"""Speeds of a search's candidates and of dense eager PyTorch, beside each other; memory; share of the roofline.

All take turns in one run (`export.measurement`). Where their files together would not fit into half of the memory, they
are compared in groups, each beside PyTorch: ratios stay ratios of one run. A GPU that is not here is not guessed at:
candidates for it have no speeds, and are chosen by size among those that pass.
"""

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from export.measurement import (
    SHAPES,
    Corpus,
    Run,
    Shape,
    interleaved_latencies,
    roofline,
    speeds,
    spread_by_length,
    torch_model,
)
from export.measurement.memory import Memory, session_memory, torch_memory
from export.search.candidates import Candidate
from export.search.structures import Structure
from export.source import Source
from slipway.bundle import Speed
from slipway.engines import open_session
from slipway.errors import ExportError
from slipway.predictor import Encoder
from slipway.progress import progress
from slipway.recipe import Export

PYTORCH = "pytorch"
"""Name of the dense checkpoint's row."""

_SECONDS = {"quantize": 15.0, "quick": 45.0, "full": 240.0}
_LARGEST = max(SHAPES)
_SINGLE_TEXTS = 60
_TOKENS = 32
_FILES_IN_MEMORY = 2.5
"""Memory that a session takes, in sizes of its file."""


@dataclass(frozen=True)
class Speeds:
    """What was measured, by the name of the candidate and `PYTORCH`."""

    decides: Shape | None
    """The shape at which latency decides; None for single texts as they come."""
    conditions: dict[str, Any]
    by_shape: dict[str, dict[Shape, Speed]] = field(default_factory=dict)
    against: dict[str, float] = field(default_factory=dict)
    """PyTorch's median there, ms, in the run of each candidate."""
    text_ms: dict[str, dict[str, float]] = field(default_factory=dict)
    """p50 and p95 of single dev texts of all lengths, in random order."""
    memory_mb: dict[str, float] = field(default_factory=dict)
    roofline_share: dict[str, float] = field(default_factory=dict)

    def latency_ms(self, name: str) -> dict[str, float]:
        """`{"p50", "p95"}` where latency decides; empty if it was not measured."""
        if self.decides is None:
            return self.text_ms.get(name, {})
        speed = self.by_shape.get(name, {}).get(self.decides)
        return {} if speed is None else {"p50": speed.p50_ms, "p95": speed.p95_ms}

    def speedup(self, name: str) -> float:
        """PyTorch's median over this one's; 1 if it was not measured."""
        latency = self.latency_ms(name)
        return round(self.against[name] / latency["p50"], 3) if latency else 1.0

    def of(self, name: str) -> dict[str, Speed]:
        """By shape as text, as a frontier has it."""
        return {str(shape): speed for shape, speed in self.by_shape.get(name, {}).items()}


def seconds(section: Export) -> float:
    """About how long a comparison takes."""
    return _SECONDS[section.effort]


def with_shape(section: Export, max_tokens: int) -> Export:
    """`section` with the shape at which latency decides; raises `ExportError` if texts are never so long."""
    if section.at is None:
        return section.model_copy(update={"at": str(Shape(1, min(_TOKENS, max_tokens)))})
    if section.at != "texts" and Shape.parse(section.at).tokens > max_tokens:
        raise ExportError(
            f"latency is to decide at {section.at}, but texts are cut at {max_tokens} tokens (train.max_tokens); "
            f"choose a shape such as {Shape.parse(section.at).batch}x{max_tokens} with --at."
        )
    return section


def compare(source: Source, dense: Structure, found: Sequence[Candidate], section: Export) -> Speeds:
    """Measure `found` beside eager PyTorch on the checkpoint of `dense`, with the section's threads."""
    assert section.at is not None, "with_shape has filled it in"  # noqa: S101
    decides = None if section.at == "texts" else Shape.parse(section.at)
    conditions: dict[str, Any] = {"threads": section.threads, "latency at": section.at}
    if section.target == "gpu" and not _has_gpu():
        return Speeds(decides, conditions | {"speed": "not measured: there is no GPU here"})
    result = Speeds(decides, conditions)
    longest = source.max_tokens
    shapes = sorted(
        {*(shape for shape in SHAPES if shape.tokens <= longest), decides or Shape(1, min(_TOKENS, longest))}
    )
    groups = list(_groups(found))
    for group in groups:
        _measure(source, dense, group, shapes, section, seconds(section) / len(groups), result)
    _add_memory(source, dense, found, section, result)
    _add_roofline(found, section, result)
    return result


def _measure(
    source: Source,
    dense: Structure,
    group: Sequence[Candidate],
    shapes: Sequence[Shape],
    section: Export,
    budget_s: float,
    into: Speeds,
) -> None:
    from slipway.pruned import load_classifier

    corpora = {PYTORCH: _corpus(source, dense)} | {each.trial.name: _corpus(source, each.structure) for each in group}
    runs: dict[str, Run] = {}
    with contextlib.ExitStack() as stack:
        runs[PYTORCH] = stack.enter_context(torch_model(load_classifier(source.path), section.threads))
        for each in group:
            runs[each.trial.name] = open_session(each.model, each.target).run
        measured = speeds(runs, shapes, corpora, budget_s=budget_s)
        into.text_ms.update(interleaved_latencies(runs, _single_texts(source, dense, group)))
    for name, by_shape in measured.items():
        into.by_shape[name] = {
            shape: Speed(p50_ms=one.p50_ms, p95_ms=one.p95_ms, sequences_per_s=one.sequences_per_s)
            for shape, one in by_shape.items()
        }
        into.against[name] = into.latency_ms(PYTORCH)["p50"]


def _single_texts(source: Source, dense: Structure, group: Sequence[Candidate]) -> dict[str, list[Any]]:
    """A few dev texts of all lengths, one a batch, as each candidate's server would pad them."""
    texts = [source.dev.texts[row] for row in spread_by_length(source.dev.texts, _SINGLE_TEXTS)]
    encode = Encoder(dense.tokenizer, dense.spec.tokenization)
    batches = {PYTORCH: [encode([text]) for text in texts]}
    for each in group:
        padding = each.target.pad_to_multiple_of
        encode = Encoder(each.structure.tokenizer, each.structure.spec.tokenization, pad_to_multiple_of=padding)
        batches[each.trial.name] = [encode([text]) for text in texts]
    return batches


def _groups(found: Sequence[Candidate]) -> Iterator[list[Candidate]]:
    """Candidates whose sessions fit into half of the machine's memory together."""
    most = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2
    group: list[Candidate] = []
    size = 0.0
    for each in found:
        needed = _FILES_IN_MEMORY * each.model.stat().st_size
        if group and size + needed > most:
            yield group
            group, size = [], 0.0
        group.append(each)
        size += needed
    yield group


def _corpus(source: Source, structure: Structure) -> Corpus:
    """The dev texts as the structure's tokenizer sees them."""
    return Corpus(Encoder(structure.tokenizer, structure.spec.tokenization), source.dev.texts)


def _add_memory(source: Source, dense: Structure, found: Sequence[Candidate], section: Export, into: Speeds) -> None:
    """Memory of each; several at a time, as each is measured in a process of its own and time doesn't matter."""
    shape = Shape(_LARGEST.batch, min(_LARGEST.tokens, source.max_tokens))
    batches = {each.structure.name: _corpus(source, each.structure).batch(shape) for each in found}
    batches.setdefault(dense.name, _corpus(source, dense).batch(shape))
    jobs: dict[str, Callable[[], Memory]] = {
        PYTORCH: partial(torch_memory, source.path, batches[dense.name], threads=section.threads)
    }
    for each in found:
        jobs[each.trial.name] = partial(session_memory, each.model, each.target, batches[each.structure.name])
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool, progress("Measuring memory", len(jobs)) as advance:
        for name, memory in zip(jobs, pool.map(lambda job: job(), jobs.values()), strict=True):
            into.memory_mb[name] = memory.peak_mb
            advance()


def _add_roofline(found: Sequence[Candidate], section: Export, into: Speeds) -> None:
    """Share of the peaks of the precisions that the candidate's products have, at the shape where it is highest."""
    peaks = roofline.peaks(section.threads)
    for each in found:
        hint = each.target.precision_hint
        shares = [
            roofline.share(roofline.operations(each.model, shape, hint), speed.sequences_per_s, peaks)
            for shape, speed in into.by_shape[each.trial.name].items()
        ]
        into.roofline_share[each.trial.name] = round(max(shares), 4)
    into.conditions.update({"int8 peak": f"{peaks.int8:.0f} G/s", "fp32 peak": f"{peaks.fp32:.0f} G/s"})


def _has_gpu() -> bool:
    import onnxruntime

    return "CUDAExecutionProvider" in onnxruntime.get_available_providers()
