"""The page: evidence in, one HTML file out that needs nothing beside it.

What is marked safe is what this package drew or wrote itself, see `templating`."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import yaml
from markupsafe import Markup

from slipway import __version__
from slipway.bundle import Variant
from slipway.report import plots
from slipway.report.evidence import Evidence, Quality
from slipway.report.gathering import artifacts_behind
from slipway.report.headline import headline, tiles
from slipway.report.loadtest import conditions, objective_lines
from slipway.report.templating import make_environment, style_sheet

_LARGEST_CONFUSIONS = 10


class _RecipeDumper(yaml.SafeDumper):
    """Lists in one line, as recipes write them: `[null, -0.5]`."""

    def represent_sequence(self, tag: str, sequence: Any, flow_style: bool | None = None) -> yaml.SequenceNode:
        return super().represent_sequence(tag, sequence, flow_style=True if flow_style is None else flow_style)


@dataclass(frozen=True)
class Stage:
    """One row of the table that compares a model's quality along the run."""

    name: str
    note: str
    quality: Quality


@dataclass(frozen=True)
class Confusion:
    """Rows of `truth` that were labelled `answer`; `share` of all rows of `truth`."""

    truth: str
    answer: str
    count: int
    share: float


def render(evidence: Evidence) -> str:
    """The whole page as HTML text."""
    environment = make_environment()
    environment.globals |= {"speed_shapes": speed_shapes}
    return environment.get_template("report.html.j2").render(
        evidence=evidence,
        style=style_sheet(environment),
        headline=headline(evidence),
        tiles=tiles(evidence),
        stages=quality_stages(evidence),
        confusions=largest_confusions(evidence.served),
        figures={name: Markup(svg) for name, svg in _figures(evidence).items()},  # noqa: S704
        objectives=objective_lines(evidence.load.verdict) if evidence.load else [],
        conditions=conditions(evidence.load.verdict) if evidence.load else {},
        chain=list(artifacts_behind(evidence)),
        recipe=recipe_yaml(evidence),
        versions=_versions(evidence),
        written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        version=__version__,
    )


def speed_shapes(variants: Sequence[Variant]) -> list[str]:
    """Every shape that a variant was timed at, in the order of the first that was."""
    return list(dict.fromkeys(shape for variant in variants for shape in variant.speeds))


def quality_stages(evidence: Evidence) -> list[Stage]:
    """Before fine-tuning, after it, after compression: those that were measured on test."""
    training, compression = evidence.training, evidence.compression
    chosen = compression.chosen if compression else None
    stages = [
        ("Before fine-tuning", "the base with an untrained head", training.before if training else None),
        ("After fine-tuning", "dense, PyTorch", training.after if training else None),
        (
            "After compression",
            f"{chosen.name}, as served" if chosen else "as served",
            compression.test if compression else None,
        ),
    ]
    return [Stage(name, note, quality) for name, note, quality in stages if quality is not None]


def largest_confusions(quality: Quality | None) -> list[Confusion]:
    """The most frequent mistakes, most frequent first."""
    if quality is None or len(quality.confusion) != len(quality.classes):
        return []
    found = [
        Confusion(quality.classes[true].label, quality.classes[said].label, count, count / sum(row))
        for true, row in enumerate(quality.confusion)
        for said, count in enumerate(row)
        if true != said and count
    ]
    return sorted(found, key=lambda each: -each.count)[:_LARGEST_CONFUSIONS]


def recipe_yaml(evidence: Evidence) -> str:
    """The recipe as it was run, defaults included; a key whose value is null was not set and is left out."""
    return str(
        yaml.dump(
            _set_only(evidence.recipe),
            Dumper=_RecipeDumper,
            allow_unicode=True,
            sort_keys=False,
            width=100,
        )
    ).strip()


def _figures(evidence: Evidence) -> dict[str, str]:
    drawn: dict[str, str] = {}
    history = evidence.training.history if evidence.training else None
    if history and (len(history.steps) or history.evaluations):
        drawn["loss"] = plots.loss_curve(history)
    if history and history.evaluations:
        drawn["dev"] = plots.dev_curve(history)
    if evidence.compression and evidence.compression.variants:
        drawn["variants"] = plots.variants_plot(evidence.compression.variants, evidence.setting("export", "budget"))
    load = evidence.load
    if load and load.timeline is not None:
        drawn["latency"] = plots.latency_over_time(load.timeline, load.verdict.latency_limits)
        drawn["distribution"] = plots.distribution(load.timeline, load.verdict.latency_limits)
    return drawn


def _versions(evidence: Evidence) -> dict[str, str]:
    versions: dict[str, str] = {}
    for artifact in evidence.artifacts:
        versions.update(artifact.manifest.versions)
    return versions


def _set_only(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _set_only(each) for key, each in value.items() if each is not None}
    return value
