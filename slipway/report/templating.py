"""The templates' environment, which all pages share: escaping, numbers as a person reads them, the style.

Jinja2 with autoescape on: labels, texts in failures, server answers and recipe values all come from
outside, and a report is opened from disk with a browser's full trust. Only what this package drew or wrote
itself is marked safe."""

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from slipway.report import formatting
from slipway.report.headline import MARKS


def make_environment() -> Environment:
    """Templates of this package with their filters."""
    environment = Environment(
        loader=PackageLoader("slipway.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "whole": formatting.whole,
        "percent": formatting.percent,
        "score": formatting.score,
        "points": formatting.points,
        "ms": formatting.milliseconds,
        "mb": formatting.megabytes,
        "rate": formatting.rate,
        "seconds": formatting.seconds,
        "compact": formatting.compact,
        "metric_name": formatting.metric_name,
        "plural": formatting.plural,
        "detail": _detail,
    }
    environment.globals |= {"ratio": formatting.ratio, "marks": MARKS}
    return environment


def style_sheet(environment: Environment) -> Markup:
    """The style of every page."""
    loader = environment.loader
    assert loader is not None  # noqa: S101
    return Markup(loader.get_source(environment, "report.css")[0])  # noqa: S704  (this package's own file)


def _detail(value: Any) -> str:
    """A value of an open dict (machine, endpoint) for a person."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ", ".join(_detail(each) for each in value)
    if isinstance(value, dict):
        return ", ".join(f"{key} {_detail(each)}" for key, each in value.items())
    if isinstance(value, float):
        return f"{value:,.4g}"
    return formatting.DASH if value is None else str(value)
