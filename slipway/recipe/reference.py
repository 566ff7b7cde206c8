"""The page about recipes, written from the models themselves: `python -m slipway.recipe.reference > docs/recipe.md`.

A test holds the page against this, so that a field without documentation, or documentation without a field, can't land.
"""

import json
import sys
from typing import Any

from slipway.recipe.loading import recipe_schema

_INTRODUCTION = """\
# Recipes

One YAML file says everything about a run. It is checked whole before any work starts; an error names the file, the
line, the field, the value, what is allowed and the nearest right name. `slipway recipe check FILE` prints it with every
default filled in; `slipway recipe schema > recipe.schema.json` gives editors what they need to complete and check it
while you type.

Relative `file:` references are taken from the recipe's folder. Numbers such as `1e-4` are numbers, `no` and dates are
texts, a key given twice is an error.
"""


def reference_page() -> str:
    """The Markdown of docs/recipe.md."""
    schema = recipe_schema()
    sections = {name: field["$ref"] for name, field in schema["properties"].items() if "$ref" in field}
    parts = [_INTRODUCTION, "## Top level", "", _table(schema)]
    for name, reference in sections.items():
        parts += _section(schema, name, reference, depth=2)
    return "\n".join(parts) + "\n"


def _section(schema: dict[str, Any], name: str, reference: str, depth: int) -> list[str]:
    """A section's heading, words and table, and those of the sections in it."""
    model = _resolve(schema, reference)
    parts = ["", f"{'#' * depth} {name}", "", model["description"], "", _table(model)]
    for field, details in model["properties"].items():
        optional = (option["$ref"] for option in details.get("anyOf", ()) if "$ref" in option)
        entries = details.get("items", {}).get("$ref")
        if found := details.get("$ref") or next(optional, None) or entries:
            parts += _section(schema, f"{name}.{field}", found, depth + 1)
        for kind, reference_of_kind in _kinds(details).items():
            parts += _section(schema, f"{name}.{field}: {kind}", reference_of_kind, depth + 1)
    return parts


def _kinds(details: dict[str, Any]) -> dict[str, str]:
    """Sections of which a field may be one, by what its first line says."""
    kinds: dict[str, str] = details.get("discriminator", {}).get("mapping", {})
    return kinds


def _table(model: dict[str, Any]) -> str:
    required = set(model.get("required", []))
    lines = ["| field | value | default | |", "| --- | --- | --- | --- |"]
    for name, details in model["properties"].items():
        default = "required" if name in required else _default(details)
        about = details.get("description", "see below" if "$ref" in details else "")
        cells = (f"`{name}`", _values(details), default, about)
        lines.append("| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |")
    return "\n".join(lines)


def _default(details: dict[str, Any]) -> str:
    default = details.get("default")
    return "" if default is None or isinstance(default, dict) else f"`{json.dumps(default)}`"


def _values(details: dict[str, Any]) -> str:
    if kinds := _kinds(details):
        return ", ".join(f"`{kind}`" for kind in kinds) + ", or a section"
    if "enum" in details or "const" in details:
        return ", ".join(f"`{value}`" for value in details.get("enum", [details.get("const")]))
    if "anyOf" in details:
        return " or ".join(_values(option) for option in details["anyOf"] if option.get("type") != "null")
    kinds = {
        "string": "text",
        "integer": "whole number",
        "number": "number",
        "array": "list",
        "object": "mapping",
    }
    kind = kinds.get(details.get("type", ""), "section")
    if details.get("type") == "array" and isinstance(details.get("items"), dict):
        kind = f"list of {_values(details['items'])}"
    bounds = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    limits = [f"{sign} {details[key]:g}" for key, sign in bounds.items() if key in details]
    return f"{kind} {', '.join(limits)}" if limits else kind


def _resolve(schema: dict[str, Any], reference: str) -> dict[str, Any]:
    found: dict[str, Any] = schema["$defs"][reference.rpartition("/")[2]]
    return found


if __name__ == "__main__":
    sys.stdout.write(reference_page())
