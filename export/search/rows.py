"""Rows of the frontier: what a candidate answered on dev and how fast, as figures a gate can judge.

Every candidate is compared with the dense checkpoint on the same rows of dev (a paired comparison), and with the
PyTorch logits of its own weights (parity: what quantization and the engine changed, without what pruning changed).
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from export.evaluation.calibration import fit_temperature
from export.evaluation.classes import per_class
from export.evaluation.significance import compare, metric_interval
from export.search.candidates import Candidate
from export.search.speed import PYTORCH, Speeds
from export.source import Source
from slipway.bundle import ClassChange, Variant
from slipway.recipe import Export
from slipway.tasks import get_task

FloatArray = npt.NDArray[np.float32]


def variant_row(source: Source, candidate: Candidate, speeds: Speeds, section: Export) -> Variant:
    """The candidate's row, not yet judged."""
    name, metric = candidate.trial.name, section.metric
    predicted, dense = candidate.logits.argmax(1), source.dev_logits.argmax(1)
    targets, classes = source.dev.targets, len(source.labels)
    against = compare(targets, dense, predicted, metric=metric, classes=classes, seed=section.seed)
    calibration = fit_temperature(candidate.logits, targets)
    return Variant(
        name=name,
        structure=candidate.structure.name,
        precision=candidate.target.precision,
        engine=candidate.target.engine,
        bytes=candidate.model.stat().st_size,
        metric=metric,
        dev=_metrics(source, candidate.logits),
        interval=metric_interval(targets, predicted, metric=metric, classes=classes, seed=section.seed),
        loss_points=round(against.loss_points, 3),
        loss_interval=(round(against.low, 3), round(against.high, 3)),
        loss_error=round(against.standard_error, 3),
        loss_p_value=round(against.p_value, 5),
        agreement=float((predicted == dense).mean()),
        max_logit_difference=float(np.abs(candidate.logits - candidate.structure.dev_logits).max()),
        classes={
            label: ClassChange(before=change.before, after=change.after)
            for label, change in per_class(targets, dense, predicted, source.labels).items()
        },
        temperature=round(calibration.temperature, 4),
        latency_ms=speeds.latency_ms(name),
        speedup=speeds.speedup(name),
        speeds=speeds.of(name),
        text_ms=speeds.text_ms.get(name, {}),
        memory_mb=speeds.memory_mb.get(name),
        roofline_share=speeds.roofline_share.get(name),
        how=candidate.how,
        passed=False,
        verdict="",
    )


def loss_points(source: Source, logits: FloatArray, metric: str) -> float:
    """Points of `metric` on dev that `logits` lose against the dense checkpoint."""
    found = get_task(source.task).evaluate(logits, source.dev.targets, source.labels)
    return 100 * float(source.dense_dev[metric] - found[metric])


def reference_row(source: Source, speeds: Speeds, section: Export) -> Variant:
    """The dense checkpoint in eager PyTorch, as the first row of the frontier."""
    predicted, targets = source.dev_logits.argmax(1), source.dev.targets
    return Variant(
        name=PYTORCH,
        precision="fp32",
        engine=PYTORCH,
        bytes=sum(file.stat().st_size for file in source.path.glob("*.safetensors")),
        metric=section.metric,
        dev=_metrics(source, source.dev_logits),
        interval=metric_interval(
            targets, predicted, metric=section.metric, classes=len(source.labels), seed=section.seed
        ),
        loss_points=0.0,
        agreement=1.0,
        max_logit_difference=0.0,
        temperature=round(fit_temperature(source.dev_logits, targets).temperature, 4),
        latency_ms=speeds.latency_ms(PYTORCH),
        speedup=1.0,
        speeds=speeds.of(PYTORCH),
        text_ms=speeds.text_ms.get(PYTORCH, {}),
        memory_mb=speeds.memory_mb.get(PYTORCH),
        passed=False,
        verdict="the reference",
    )


def _metrics(source: Source, logits: FloatArray) -> dict[str, Any]:
    """Metrics on dev; calibration error before and after the temperature."""
    task, targets = get_task(source.task), source.dev.targets
    calibration = fit_temperature(logits, targets)
    scaled = task.evaluate((logits / np.float32(calibration.temperature)), targets, source.labels)
    return task.evaluate(logits, targets, source.labels) | {"ece_calibrated": scaled["ece"]}
