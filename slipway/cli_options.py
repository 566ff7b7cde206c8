"""What the commands share: options over a recipe's section, and how an artifact is told to the user."""

import json
from pathlib import Path
from typing import Any

import click

from slipway.artifacts import Artifact
from slipway.errors import SlipwayError
from slipway.progress import say

FOLDER = click.Path(path_type=Path)


def override(section_type: type[Any], section: Any, options: dict[str, Any]) -> Any:
    """`section` with the options that were given; validated as if they stood in a recipe."""
    from pydantic import ValidationError

    given = {name: value for name, value in options.items() if value is not None}
    try:
        return section_type.model_validate_json(json.dumps(section.model_dump(mode="json") | given))
    except ValidationError as error:
        first = error.errors()[0]
        if first["type"] == "value_error":
            raise SlipwayError(f"{first['ctx']['error']}.") from error
        option = _option_of(str(first["loc"][0])) if first["loc"] else "options"
        raise SlipwayError(f"{option}: {json.dumps(first['input'])}: {first['msg'].removeprefix('Input ')}.") from error


def _option_of(field: str) -> str:
    """The option of the running command that sets a section's `field`; the field itself if none does."""
    parameters = click.get_current_context().command.params
    return next((parameter.opts[0] for parameter in parameters if parameter.name == field), field)


def print_artifact(artifact: Artifact) -> None:
    """Its figures to stderr, its path to stdout."""
    figures = ", ".join(
        f"{name} {value:.4f}" if isinstance(value, float) else f"{name} {value}"
        for name, value in artifact.manifest.metrics.items()
    )
    say(f"{artifact.manifest.kind}: {figures}")
    click.echo(artifact.path)
