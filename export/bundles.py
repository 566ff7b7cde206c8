"""The export stage: open the checkpoint, search, pass the gate, write the bundle.

The search keeps what it made beside the bundle (`.NAME.search-…`), under the digest of what its variants depend on: the
checkpoint, the code and the seeds, but not the budget, the effort or the limits. Asked again with another budget, or
after Ctrl-C, it goes on from what is there. Where a student won, its weights are written beside the bundle as a
checkpoint of their own (`NAME-checkpoint`), which can be fine-tuned, exported and pruned again.
"""

import contextlib
import platform
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from export.distillation.unlabelled import unlabelled_texts
from export.search.candidates import Candidate, copy_into
from export.search.search import Outcome, search
from export.search.structures import student_logits
from export.source import Source
from slipway.artifacts import Artifact, code_version, inputs_digest, read_artifact, write_artifact
from slipway.assets import fingerprint
from slipway.bundle import EXPECTED, FRONTIER, PLOT, SPEC, BundleSpec, Check, Variant
from slipway.errors import ExportError
from slipway.predictor import Prediction, Predictor
from slipway.progress import progress, say
from slipway.recipe import Export
from slipway.report.plots import standalone, variants_plot
from slipway.tasks import get_task
from slipway.tasks.metrics import softmax

_STUDENT = "student.json"

# What a server asks itself before it is ready. Not from the data: a bundle may have to leave texts out.
_CHECK_TEXTS = (
    "This is excellent.",
    "It was terrible, a waste of money.",
    "The report is due on Friday.",
    "这部电影很好看。",
    "👍",
)


def export_inputs(checkpoint: Artifact, section: Export) -> str:
    """Digest of everything that the bundle depends on; see `slipway.artifacts.inputs_digest`."""
    recipe = {"export": section.model_dump(mode="json")}
    return inputs_digest("export", recipe, [checkpoint], assets=_assets(section))


def _assets(section: Export) -> dict[str, str]:
    """What is read beside the checkpoint."""
    if section.unlabelled is None:
        return {}
    return {"unlabelled": fingerprint(section.unlabelled, section.unlabelled_sha256)}


def export(checkpoint_path: Path, out: Path, section: Export, *, force: bool = False) -> Artifact:
    """Make the bundle of the checkpoint at `checkpoint_path`; with `force`, without anything of earlier searches.

    Raises `GateError` if no variant passes, and then writes no bundle; `ExportError` if bundle or student would
    take the place of what is not theirs.
    """
    student_out = out.with_name(f"{out.name}-checkpoint")
    _require_places(checkpoint_path, out, student_out)
    source = Source.open(checkpoint_path)
    work = _work_folder(source, section, out)
    if force:
        shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(work)
    try:
        outcome = search(source, section, unlabelled_texts(section, source.held_out()), work)
    except BaseException:
        with contextlib.suppress(OSError):  # it is not empty: what was made is gone on from
            work.rmdir()
        raise
    if outcome.chosen.structure.checkpoint is None:
        bundle = _write_bundle(source, outcome, section, out, [source.checkpoint])
        if _is_student(student_out):
            say(f"{student_out} is the student of an earlier bundle, and stays; {out} was made of the dense model")
        return bundle
    student = _write_student(source, outcome.chosen, section, student_out)
    try:
        return _write_bundle(source, outcome, section, out, [source.checkpoint, student])
    except BaseException:
        if not out.exists():  # a checkpoint beside no bundle would be taken for something that passed
            shutil.rmtree(student.path, ignore_errors=True)
        raise


def _require_places(checkpoint: Path, out: Path, student: Path) -> None:
    """Raise `ExportError` if `out` or `student` would replace the checkpoint, or what no export wrote."""
    own = checkpoint.resolve()
    if own == student.resolve() or own in (out.resolve(), *out.resolve().parents):
        raise ExportError(
            f"the bundle {out} and the checkpoint of a student, {student}, can't be written in the checkpoint's own "
            "place. Name another folder with --out."
        )
    if student.exists() and not _is_student(student) and any(student.iterdir() if student.is_dir() else [student]):
        raise ExportError(
            f"{student} is where the checkpoint of a student goes, and no export wrote it. Move it, or name another "
            "folder with --out."
        )


def _is_student(path: Path) -> bool:
    return (path / _STUDENT).is_file()


def _work_folder(source: Source, section: Export, out: Path) -> Path:
    """Where the search keeps its variants; those of another checkpoint or of older code are removed."""
    key = inputs_digest(
        "export",
        {
            "target": section.target,
            "seed": section.seed,
            "unlabelled": [section.unlabelled, section.unlabelled_text],
        },
        [source.checkpoint],
        assets=_assets(section),
    )
    out = out.absolute()
    work = out.parent / f".{out.name}.search-{key[:12]}"
    for other in out.parent.glob(f".{out.name}.search-*"):
        if other != work:
            shutil.rmtree(other, ignore_errors=True)
    return work


def _remove_abandoned(work: Path) -> None:
    """What a search that was killed had half-written; whoever searches here has the claim to `work`'s bundle."""
    for leftover in [*work.glob("*/.*"), *work.rglob("*.partial")]:
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)


def _write_student(source: Source, chosen: Candidate, section: Export, out: Path) -> Artifact:
    """The winner's weights as a checkpoint artifact, with the splits of the dense one."""
    student, dense = chosen.structure, source.checkpoint
    assert student.checkpoint is not None  # noqa: S101  # the caller asked
    with write_artifact(
        out,
        "checkpoint",
        name=dense.manifest.name,
        inputs=export_inputs(dense, section),
        parents=[dense],
        recipe=dense.manifest.recipe | {"export": section.model_dump(mode="json")},
    ) as draft:
        shutil.copytree(student.checkpoint, draft.path, dirs_exist_ok=True)
        shutil.copytree(source.path / "data", draft.path / "data", dirs_exist_ok=True)
        logits = {"dev": student.dev_logits, "test": student_logits(student, source.test()[0].texts)}
        (draft.path / "logits").mkdir()
        for split, values in logits.items():
            np.save(draft.path / "logits" / f"{split}.npy", values, allow_pickle=False)
        draft.write_json(_STUDENT, student.how)
        dev = get_task(source.task).evaluate(student.dev_logits, source.dev.targets, source.labels)
        draft.metrics.update({"structure": student.name, f"dev_{section.metric}": dev[section.metric]})
    return read_artifact(out, "checkpoint", verify=False)


def _write_bundle(source: Source, outcome: Outcome, section: Export, out: Path, parents: list[Artifact]) -> Artifact:
    candidate, chosen = outcome.chosen, outcome.row
    test, dense_test = source.test()
    spec = candidate.spec.model_copy(update={"temperature": chosen.temperature})
    answers = _predict(candidate, spec, test.texts, "Accuracy after compression (test)")
    task = get_task(source.task)
    metrics = task.evaluate(answers.logits / np.float32(chosen.temperature), test.targets, source.labels)
    spec = spec.model_copy(update={"checks": _checks(candidate, spec)})
    recipe = {"export": section.model_dump(mode="json")}
    with write_artifact(
        out,
        "bundle",
        name=source.checkpoint.manifest.name,
        inputs=export_inputs(source.checkpoint, section),
        parents=parents,
        recipe=recipe,
    ) as draft:
        copy_into(candidate, draft.path)
        draft.write_json(SPEC, spec.model_dump(mode="json"))
        draft.write_json(FRONTIER, [variant.model_dump(mode="json") for variant in outcome.rows])
        if any(variant.latency_ms for variant in outcome.rows):
            plot = variants_plot(outcome.rows, section.allowed_loss)
            (draft.path / PLOT).write_text(standalone(plot), encoding="utf-8")
        agreement = float((answers.logits.argmax(1) == dense_test.argmax(1)).mean())
        draft.write_json("test.json", {"metrics": metrics, "agreement": agreement})
        truth = [source.labels[target] for target in test.targets]
        _write_expected(draft.path / EXPECTED, test.texts, truth, answers, spec.temperature, section.test_texts)
        draft.metrics.update(_headline(chosen, metrics) | {"conditions": outcome.conditions | _machine()})
    return read_artifact(out, "bundle", verify=False)


def _headline(chosen: Variant, test: dict[str, Any]) -> dict[str, Any]:
    found = {
        "variant": chosen.name,
        "bytes": chosen.bytes,
        "loss_points": chosen.loss_points,
        "agreement": chosen.agreement,
        "test_accuracy": test["accuracy"],
        "test_macro_f1": test["macro_f1"],
    }
    if chosen.latency_ms:
        found |= {"latency_p50_ms": chosen.latency_ms["p50"], "speedup": chosen.speedup}
    return found


def _machine() -> dict[str, Any]:
    """Processor and code, so that figures can be told from those of another machine."""
    names = [line for line in _cpuinfo() if line.startswith("model name")]
    return {
        "processor": names[0].partition(":")[2].strip() if names else platform.processor(),
        "python": platform.python_version(),
        "code": code_version("export"),
    }


def _cpuinfo() -> list[str]:
    file = Path("/proc/cpuinfo")
    return file.read_text(encoding="utf-8").splitlines() if file.exists() else []


def _checks(candidate: Candidate, spec: BundleSpec) -> list[Check]:
    answers = _predict(candidate, spec, list(_CHECK_TEXTS), "Checks")
    return [
        Check(text=text, label=label, score=float(score))
        for text, label, score in zip(_CHECK_TEXTS, answers.labels, answers.scores, strict=True)
    ]


def _predict(candidate: Candidate, spec: BundleSpec, texts: list[str], label: str) -> Prediction:
    """Answers with the very code and the very threads that the server will use."""
    predictor = Predictor(candidate.folder, spec, candidate.target)
    parts = []
    chunk = 256
    with progress(label, len(texts)) as advance:
        for start in range(0, len(texts), chunk):
            parts.append(predictor.predict(texts[start : start + chunk]))
            advance(len(parts[-1].labels))
    return Prediction(
        [name for part in parts for name in part.labels],
        np.concatenate([part.scores for part in parts]),
        np.concatenate([part.logits for part in parts]),
        [truncated for part in parts for truncated in part.truncated],
    )


def _write_expected(
    file: Path, texts: list[str], truth: list[str], answers: Prediction, temperature: float, most: int
) -> None:
    probabilities = np.sort(softmax(answers.logits, temperature), axis=1)
    pq.write_table(
        pa.table(
            {
                "text": pa.array(texts[:most], pa.string()),
                "label": pa.array(truth[:most], pa.string()),
                "predicted": pa.array(answers.labels[:most], pa.string()),
                "score": pa.array(answers.scores[:most], pa.float32()),
                "margin": pa.array((probabilities[:, -1] - probabilities[:, -2])[:most], pa.float32()),
            }
        ),
        file,
    )
