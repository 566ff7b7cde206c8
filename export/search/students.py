"""Students: smaller models cut out of the checkpoint and taught by it, each the start of the next.

A link of the chain measures importance on training rows, takes out layers and then heads and neurons, and lets the
rest recover by distillation (`export.pruning`, `export.distillation`). The dense model is asked once for everything it
has to teach; each student is kept as a structure on disk (`export.search.structures`).

Train teaches and ranks; dev is only looked at to report. The last weights are taken rather than the best on dev: the
learning rate has fallen to nothing by then, and a choice by dev would flatter what the gate compares on dev.
"""

import dataclasses
import shutil
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from export.distillation import distil
from export.distillation.teacher import head_row
from export.pruning import plan, prune, structure_of
from export.pruning.importance import Importance, eliminate, measure
from export.quantization.calibration_texts import CALIBRATION_TEXTS, sample
from export.search import structures
from export.search.lessons import Lesson, lesson, recovery
from export.search.plans import Cut
from export.search.structures import Structure
from export.source import Source, tokenizer_of
from slipway.artifacts import sha256_file
from slipway.bundle import TOKENIZER
from slipway.inputs import taken_by
from slipway.progress import progress, say
from slipway.recipe import Export

Rank = Callable[[Any, Sequence[Mapping[str, Any]]], Importance]

_IMPORTANCE_ROWS = 768
_ABLATION_ROWS = 256
_BATCH = 32
_FLOOR = 0.75
_LAST_ROWS = 1 / 32
"""Share of the rows of the last layer that a head on the first token reads, at 32 tokens."""
_TOKEN_COUNT = 2
"""A token stays if the training texts use it so often; see `export.vocabulary` for what each choice costs."""


class Students:
    """Makes the students of a search, or takes them from `folder` where they are finished."""

    def __init__(
        self,
        source: Source,
        section: Export,
        unlabelled: Sequence[str],
        folder: Path,
        deadline: float | None,
    ) -> None:
        self._source = source
        self._section = section
        self._folder = folder
        self._deadline = deadline
        self._unlabelled = list(unlabelled)

    def make(self, cut: Cut, parent: Structure, *, seed: int) -> Structure:
        """The student that `cut` makes of `parent`, trained from `seed`."""
        name = cut.name if seed == self._section.seed else f"{cut.name}-seed{seed}"
        made_of = {"cut": dataclasses.asdict(cut), "seed": seed, **_origin(parent)}
        student = self._finished(name, made_of) or self._train(name, cut, parent, made_of)
        # Also of one that was finished: a kill may have come in between.
        for leftover in (f"{name}.distillation", f"{name}.tokenizer"):
            shutil.rmtree(self._folder / leftover, ignore_errors=True)
        return student

    def adapt(self, parent: Structure) -> Structure:
        """`parent` after quantization-aware fine-tuning, as a structure of its own."""
        from export.quantization.qat import SETTINGS, quantization_aware
        from slipway.predictor import Encoder
        from slipway.pruned import load_classifier

        name = f"{parent.name}-qat"
        folder, work = self._folder / name, self._folder / f"{name}.distillation"
        made_of = {"effort": self._section.effort, **_origin(parent)}
        finished = self._finished(name, made_of)
        if finished is not None:
            shutil.rmtree(work, ignore_errors=True)
            return finished
        model = load_classifier(parent.checkpoint or self._source.path)
        files = parent.tokenizer.parent
        settings = dataclasses.replace(SETTINGS, max_tokens=self._source.max_tokens)
        encode = Encoder(parent.tokenizer, parent.spec.tokenization)
        calibration = [encode([text]) for text in sample(self._source.train.texts, CALIBRATION_TEXTS, 0)]
        adapted = quantization_aware(
            model,
            tokenizer_of(files),
            self._lesson.texts,
            self._lesson.targets,
            self._lesson.answers,
            calibration,
            settings,
            seed=self._section.seed,
            work=work,
            deadline=self._deadline,
        )
        how = made_of | {
            "quantization_aware": dataclasses.asdict(settings),
            "steps": adapted.curve.steps,
            "planned_steps": adapted.curve.planned_steps,
        }
        structure = structures.write(name, adapted.model, files, how, self._source, folder)
        shutil.rmtree(work, ignore_errors=True)
        return structure

    def _finished(self, name: str, made_of: dict[str, Any]) -> Structure | None:
        """The student of this name if it was made of what is asked for; None if it is another search's of that name.

        One that a deadline ended early is only taken by a search that has a deadline, too.
        """
        found = structures.load(name, self._folder / name, self._source)
        if found is None or any(found.how.get(key) != value for key, value in made_of.items()):
            return None
        ended_early = found.how.get("steps", 0) < found.how.get("planned_steps", 0)
        return None if ended_early and self._deadline is None else found

    def _train(self, name: str, cut: Cut, parent: Structure, made_of: dict[str, Any]) -> Structure:
        from slipway.pruned import load_classifier

        folder = self._folder / name
        say(f"  {name}: {_describe(cut)}")
        model = load_classifier(parent.checkpoint or self._source.path)
        tokenizer_files = parent.tokenizer.parent
        how = dict(made_of)
        if cut.prune_vocabulary:
            model, tokenizer_files, vocabulary = self._prune_vocabulary(model, tokenizer_files, folder)
            how |= {"vocabulary": vocabulary}
        else:
            model, pruning = cut_down(self._source, model, tokenizer_of(tokenizer_files), cut, seed=self._section.seed)
            how |= {"pruning": pruning}
        if cut.operations == 0:
            return structures.write(name, model, tokenizer_files, how, self._source, folder)
        how |= {"embedding_bits": round_embeddings(model)}
        settings = recovery(self._source, model, cut, self._lesson)
        curve = distil(
            model,
            tokenizer_of(tokenizer_files),
            self._lesson.texts,
            self._lesson.targets,
            self._lesson.answers,
            settings,
            seed=made_of["seed"],
            work=self._folder / f"{name}.distillation",
            deadline=self._deadline,
        )
        how |= {
            "distillation": dataclasses.asdict(settings),
            "texts": len(self._lesson.texts),
            "unlabelled": sum(target is None for target in self._lesson.targets),
            "steps": curve.steps,
            "planned_steps": curve.planned_steps,
            "seconds": curve.seconds,
            "texts_per_s": curve.texts_per_s,
        }
        return structures.write(name, model, tokenizer_files, how, self._source, folder)

    def _prune_vocabulary(self, model: Any, files: Path, folder: Path) -> tuple[Any, Path, dict[str, Any]]:
        from export.vocabulary import coverage, prune_vocabulary, select_embeddings

        vocabulary = prune_vocabulary(
            files / TOKENIZER,
            [*self._source.train.texts, *self._unlabelled],
            min_count=_TOKEN_COUNT,
            characters="seen-scripts",
            keep=_named_tokens(files),
        )
        out = folder.with_name(f"{folder.name}.tokenizer")
        vocabulary.save_tokenizer(files, out)
        figures = dataclasses.asdict(coverage(files / TOKENIZER, vocabulary, self._source.dev.texts))
        figures |= {"tokens": len(vocabulary.kept), "tokens_before": vocabulary.tokens_before}
        return select_embeddings(model, vocabulary), out, figures

    @cached_property
    def _lesson(self) -> Lesson:
        return lesson(self._source, self._section, self._unlabelled, self._folder)


def cut_down(
    source: Source, model: Any, tokenizer: Any, cut: Cut, *, seed: int, rank: Rank = measure
) -> tuple[Any, dict[str, Any]]:
    """`model` cut to `cut`, not yet recovered, and what went.

    Layers go by elimination, heads and neurons by `rank`, which is given the model and batches of training rows that
    `seed` draws.
    """
    from slipway.pruned import shapes_of

    with progress("Ranking heads, neurons and layers"):
        batches = _labelled_batches(source, model, tokenizer, _IMPORTANCE_ROWS, seed)
        structure = structure_of(model)
        layers = None
        wanted = max(1, round(len(structure.dense) * cut.layers))
        if not structure.shares_layers and wanted < len(structure.layers):
            required = [
                place for place, layer in enumerate(structure.layers) if layer.shape.source in structure.required
            ]
            few = batches[: max(1, _ABLATION_ROWS // _BATCH)]
            layers = eliminate(model, few, wanted, required=required)
        ranked = rank(model, batches)
        chosen = plan(
            ranked,
            structure,
            compute=cut.compute,
            layers=layers,
            floor=_FLOOR,
            last_rows=_LAST_ROWS if head_row(model) == "first" else 1.0,
        )
        pruned = prune(model, chosen)
    shapes = [dataclasses.asdict(shape) for shape in shapes_of(pruned)]
    return pruned, {"importance": ranked.method, "compute": chosen.compute, "layers": shapes}


def _labelled_batches(source: Source, model: Any, tokenizer: Any, rows: int, seed: int) -> list[dict[str, Any]]:
    import torch

    train = source.train
    chosen = np.random.default_rng(seed).permutation(len(train.texts))[:rows]
    order = sorted(chosen.tolist(), key=lambda row: len(train.texts[row]))
    batches = []
    for start in range(0, len(order), _BATCH):
        part = order[start : start + _BATCH]
        encoded = tokenizer(
            [train.texts[row] for row in part],
            truncation=True,
            max_length=source.max_tokens,
            padding=True,
            return_tensors="pt",
        )
        batches.append({**taken_by(model, encoded), "labels": torch.from_numpy(train.targets[part])})
    # Not by length: the first few of these batches stand for all.
    order_of_batches = np.random.default_rng(seed).permutation(len(batches))
    return [batches[number] for number in order_of_batches]


def _named_tokens(files: Path) -> list[str]:
    """Tokens that the tokenizer's configuration names, padding among them."""
    tokenizer = tokenizer_of(files)
    return [token for token in tokenizer.all_special_tokens if token in tokenizer.get_vocab()]


def round_embeddings(model: Any) -> int:
    """Round a large token embedding to 4 bits in place; the bits that it has then.

    It is frozen while the student learns, so what it is served with is what the student learns with.
    """
    import torch

    from export.quantization.embeddings import LARGE, rounded4

    weight = model.get_input_embeddings().weight
    if weight.shape[0] < LARGE:
        return 32
    with torch.no_grad():
        weight.copy_(torch.from_numpy(rounded4(weight.float().cpu().numpy())))
    return 4


def _origin(parent: Structure) -> dict[str, Any]:
    return {"from": parent.name, "from_sha256": sha256_file(parent.model)}


def _describe(cut: Cut) -> str:
    if cut.prune_vocabulary:
        return "only the tokens of the training texts"
    return f"{cut.compute:.0%} of the computation, {cut.layers:.0%} of the layers"
