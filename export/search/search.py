"""The search: make structures and their variants, compare their speed in one run, judge them, choose.

In order, each step kept on disk when it ends and taken from there when the search is started again:

1. the dense checkpoint's graph, and its variants;
2. the students, with `full` a chain of smaller and smaller ones (`export.search.plans`), each with its variants; it
   ends where a student has lost so much that a smaller one can't pass. If none of them is good enough, one that is cut
   less deep;
3. if a student is good enough but no int8 form of it is, the last resort: quantization-aware fine-tuning;
4. all variants and dense eager PyTorch against each other, interleaved, alone on the machine. This is always done anew:
   a ratio of two runs is not a measurement;
5. the gate. With effort `full`, a student that is chosen is trained from other seeds, too, and passes only if their
   mean does.

Optuna was considered for the choice of structures. A trial here costs minutes and a search affords three of them, in
which an ordered chain that stops by itself finds the edge of the budget and a sampler has not begun to learn; a chain
also reuses each student as the next one's start.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from export.evaluation.gate import choose, judge
from export.quantization.calibration_texts import CALIBRATION_TEXTS, sample
from export.search import candidates, speed
from export.search.agenda import Agenda, cut_seconds, trial_seconds
from export.search.candidates import Candidate
from export.search.plans import DENSE, Cut, Trial, cuts, larger, trials
from export.search.rows import loss_points, reference_row, variant_row
from export.search.structures import Structure, dense_structure
from export.search.students import Students
from export.search.workers import run_jobs
from export.source import Source
from slipway.bundle import Variant
from slipway.errors import ExportError, GateError
from slipway.frontier import frontier_table
from slipway.places import is_full_disk
from slipway.progress import console, say
from slipway.recipe import Export

FloatArray = npt.NDArray[np.float32]

_SPEEDS = "speeds"
_LEAST_ALLOWED = 0.1
"""Points: a budget of less than this would leave a search nothing to go on from."""
_HOPELESS = 3.0
"""A chain ends after a student that lost more than this many times what may be lost."""


@dataclass(frozen=True)
class Outcome:
    """What a search found."""

    chosen: Candidate
    row: Variant
    """Of the chosen one."""
    rows: list[Variant]
    """Dense PyTorch first, then every variant, judged."""
    conditions: dict[str, Any]
    """Under which the speeds were measured."""


def search(source: Source, section: Export, unlabelled: Sequence[str], work: Path) -> Outcome:
    """Search under `section`, keeping what is finished in `work`; `unlabelled` are more texts to distil from.

    Raises `GateError` if no variant passes, `ExportError` if not one could be made.
    """
    return _Search(source, speed.with_shape(section, source.max_tokens), unlabelled, work).run()


@dataclass(frozen=True)
class _Link:
    """A student, and how it was made: by which cut, of which structure."""

    student: Structure
    cut: Cut
    parent: Structure


class _Search:
    def __init__(self, source: Source, section: Export, unlabelled: Sequence[str], work: Path) -> None:
        self._source = source
        self._section = section
        self._work = work
        self._deadline = time.monotonic() + section.time_budget_s if section.time_budget_s else None
        self._chain = cuts(section)
        self._students = Students(source, section, unlabelled, work / "structures", self._deadline)
        self._found: list[Candidate] = []
        self._agenda = self._planned()

    def _planned(self) -> Agenda:
        agenda = Agenda()
        self._plan_trials(agenda, DENSE)
        for cut in self._chain:
            agenda.add(cut.name, cut_seconds(cut))
            self._plan_trials(agenda, cut.name)
        agenda.add(_SPEEDS, speed.seconds(self._section))
        return agenda

    def _plan_trials(self, agenda: Agenda, structure: str) -> None:
        from export.quantization import QUANTIZERS

        for trial in trials(self._section, structure, QUANTIZERS):
            agenda.add(trial.name, trial_seconds(trial.precision.quantizer))

    def run(self) -> Outcome:
        dense = dense_structure(self._source, self._work / "structures")
        self._make(dense)
        links = self._grow(dense)
        self._last_resort(dense, [link.student for link in links])
        if not self._found:
            raise ExportError("no variant could be made of this checkpoint; the lines above say why for each.")
        return self._decide(dense, {link.student.name: link for link in links})

    def _grow(self, dense: Structure) -> list[_Link]:
        """The chain of students with their variants, as far as it leads; the smallest last."""
        links: list[_Link] = []
        parent = dense
        for cut in self._chain:
            if self._is_late(cut.name):
                return links
            link = self._link(cut, parent)
            if link is None:
                continue
            links.append(link)
            parent = link.student
            # What was not trained yet says little of what comes of it.
            if cut.operations and self._is_hopeless(parent):
                break
        less_deep = larger(self._section)
        if less_deep is not None and self._has_missed(links) and not self._is_late(less_deep.name):
            self._agenda.add(less_deep.name, cut_seconds(less_deep))
            self._plan_trials(self._agenda, less_deep.name)
            first = next((link.parent for link in links if link.cut.operations), parent)
            link = self._link(less_deep, first)
            links += [link] if link else []
        return sorted(links, key=lambda link: link.cut.compute, reverse=True)

    def _link(self, cut: Cut, parent: Structure) -> _Link | None:
        """The student that `cut` makes of `parent`, and its variants; None if it can't be made."""
        from export.quantization import QUANTIZERS

        try:
            student = self._students.make(cut, parent, seed=self._section.seed)
        except ExportError as error:
            if is_full_disk(error):
                raise
            say(f"  {cut.name} is left out: {error}")
            for step in (cut.name, *(trial.name for trial in trials(self._section, cut.name, QUANTIZERS))):
                self._agenda.finish(step)
            return None
        self._agenda.finish(cut.name)
        self._make(student)
        return _Link(student, cut, parent)

    @property
    def _allowed(self) -> float | None:
        """Points that may be lost, as far as it decides what else to try; the gate is exact."""
        allowed = self._section.allowed_loss
        return None if allowed is None else max(allowed, _LEAST_ALLOWED)

    def _has_missed(self, links: Sequence[_Link]) -> bool:
        """Whether no student that was trained has a variant within what may be lost."""
        allowed = self._allowed
        if allowed is None:
            return False
        trained = {link.student.name for link in links if link.cut.operations}
        if any(each.structure.name in trained and self._lost(each.logits) <= allowed for each in self._found):
            return False
        say(f"  no student is within {allowed:g} points: cutting less deep")
        return True

    def _lost(self, logits: FloatArray) -> float:
        return loss_points(self._source, logits, self._section.metric)

    def _make(self, structure: Structure) -> None:
        """Every variant of `structure` that the plan and the time allow."""
        from export.quantization import QUANTIZERS

        planned = trials(self._section, structure.name, QUANTIZERS)
        if structure.name != DENSE and self._is_late(f"the variants of {structure.name}"):
            return
        jobs = {trial: self._job(trial, structure) for trial in planned}
        for trial, result in run_jobs(jobs, self._section.jobs):
            self._agenda.finish(trial.name)
            if isinstance(result, ExportError):
                say(f"  {trial.name} is left out: {result}")
                continue
            self._found.append(result)
            megabytes = result.model.stat().st_size / 1e6
            say(f"  {trial.name}: {self._lost(result.logits):+.2f} points lost, {megabytes:.1f} MB ({self._agenda})")
        order = {trial: place for place, trial in enumerate(planned)}
        self._found.sort(key=lambda each: order.get(each.trial, -1))

    def _job(self, trial: Trial, structure: Structure) -> Callable[[], Candidate]:
        return candidates.Job(
            trial,
            structure,
            self._section.target,
            self._work / "variants" / trial.name,
            calibration=tuple(sample(self._source.train.texts, CALIBRATION_TEXTS, self._section.seed)),
            dev=tuple(self._source.dev.texts),
            threads=self._section.threads,
        )

    def _last_resort(self, dense: Structure, students: Sequence[Structure]) -> None:
        """Where a model is good enough and no int8 form of any is: fine-tune the smallest such with rounding in it."""
        allowed, section = self._allowed, self._section
        if allowed is None or section.effort == "quantize" or section.target == "gpu":
            return
        if any(each.target.precision == "int8" and self._lost(each.logits) <= allowed for each in self._found):
            return
        good = [structure for structure in (dense, *students) if self._lost(structure.dev_logits) <= allowed]
        if not self._is_late("quantization-aware fine-tuning"):
            say(f"  no int8 variant is within {allowed:g} points: fine-tuning {good[-1].name} with rounding in it")
            self._make(self._students.adapt(good[-1]))

    def _decide(self, dense: Structure, links: dict[str, _Link]) -> Outcome:
        """Compare speeds, judge, choose; train a chosen student from other seeds before it is final."""
        source, section = self._source, self._section
        speeds = speed.compare(source, dense, self._found, section)
        rows = [judge(variant_row(source, each, speeds, section), section) for each in self._found]
        while True:
            try:
                settled = choose(rows, section)
            except GateError:
                console.print(frontier_table([reference_row(source, speeds, section), *rows]))
                raise
            row = next(row for row in settled if row.chosen)
            chosen = next(each for each in self._found if each.trial.name == row.name)
            link = links.get(chosen.structure.name)
            # What was not trained comes out the same from every seed.
            if row.seeds or section.effort != "full" or section.seeds == 1 or link is None or link.cut.operations == 0:
                break
            seeds = self._other_seeds(chosen, link)
            rows = [
                judge(each.model_copy(update={"seeds": seeds}), section) if each.name == row.name else each
                for each in rows
            ]
        return Outcome(chosen, row, [reference_row(source, speeds, section), *settled], speeds.conditions)

    def _other_seeds(self, chosen: Candidate, link: _Link) -> list[dict[str, float]]:
        """Metric and loss of the chosen variant from each seed: its last link is trained and quantized anew."""
        source, section = self._source, self._section
        found = [chosen]
        for seed in range(section.seed + 1, section.seed + section.seeds):
            if self._is_late(f"{chosen.trial.name} from seed {seed}"):
                break
            student = self._students.make(link.cut, link.parent, seed=seed)
            found.append(self._job(Trial(student.name, chosen.trial.precision), student)())
        seeds = [
            {
                "seed": float(section.seed + place),
                "loss_points": round(loss_points(source, each.logits, section.metric), 3),
            }
            for place, each in enumerate(found)
        ]
        spread = ", ".join(f"{one['loss_points']:+.2f}" for one in seeds)
        say(f"  {chosen.trial.name} from {len(seeds)} seeds: {spread} points lost")
        return seeds

    def _is_late(self, what: str) -> bool:
        late = self._deadline is not None and time.monotonic() >= self._deadline
        if late:
            say(f"  time is up: {what} is left out")
        return late

    def _is_hopeless(self, student: Structure) -> bool:
        """Whether a smaller student than this one can't pass either."""
        allowed = self._section.allowed_loss
        if allowed is None:
            return False
        lost = self._lost(student.dev_logits)
        hopeless = lost > _HOPELESS * max(allowed, 0.5)
        if hopeless:
            say(f"  {student.name} lost {lost:.2f} points: a smaller one won't pass, the chain ends here")
        return hopeless
