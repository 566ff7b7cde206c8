"""Read a recipe and explain what is wrong with it: file, line, field, value, what is allowed, the nearest right name.

pydantic knows what is wrong but not where it stands in the file; the YAML library knows where everything stands but
not what it means. The file is therefore composed once into nodes, from which both the values and the line of every
field are taken. YAML's silent traps are errors here: a key given twice, a tag that builds objects, an alias (`*name`),
which can hold itself or grow a few lines into gigabytes.
"""

import difflib
import json
import re
import types
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from slipway.errors import RecipeError
from slipway.recipe.sections import Recipe, Settings

Path_ = tuple[str | int, ...]
_Kind = typing.TypeVar("_Kind", bound=BaseModel)

_TAGS = ("process", "mix")
"""Fields that say which kind of section it is."""

_MAX_BYTES = 1_000_000
"""Composing YAML takes half a minute for each 10 MB, and no recipe comes near one."""


def load_recipe(file: Path) -> Recipe:
    """Read and validate the recipe at `file`; relative `file:` references are taken from its folder.

    Raises `RecipeError` that lists every problem, a line each.
    """
    node, values = _read(file)
    return _validated(Recipe, file, node, values)


def load_settings(file: Path) -> Recipe | Settings:
    """The recipe at `file`, or what it says about the later stages if it says nothing of name, base and data.

    Raises `RecipeError` as `load_recipe` does.
    """
    node, values = _read(file)
    if set(values) <= set(Settings.model_fields):
        return _validated(Settings, file, node, values)
    return _validated(Recipe, file, node, values)


def _read(file: Path) -> tuple[yaml.Node | None, dict[str, Any]]:
    node = _compose(file)
    try:
        values = _Loader.values(node)
    except yaml.YAMLError as error:
        raise RecipeError(_yaml_problem(file, error)) from error
    if not isinstance(values, dict):
        raise RecipeError(f"{file}: a recipe is a mapping of fields such as name, base and data.")
    _anchor_files(values, file.parent)
    _anchor_capture(values, file.parent)
    return node, values


def _validated(kind: type[_Kind], file: Path, node: yaml.Node | None, values: dict[str, Any]) -> _Kind:
    try:
        # JSON mode: YAML has no tuples, so that lists must be taken for them even where types are strict.
        return kind.model_validate_json(json.dumps(values, default=str))
    except ValidationError as error:
        problems = [_explain(file, node, problem) for problem in error.errors()]
        raise RecipeError("\n".join(dict.fromkeys(problems))) from error


def recipe_schema() -> dict[str, Any]:
    """JSON schema of a recipe, for editors."""
    schema = Recipe.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "Slipway recipe"}


class _Loader(yaml.SafeLoader):
    """SafeLoader that refuses aliases and keys given twice, and reads 1e-4 (YAML 1.2) as a number, `no` as a text."""

    # Its own table, or the base class's would be changed.
    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012

    @classmethod
    def values(cls, node: yaml.Node | None) -> Any:
        """The plain values of a composed document."""
        if node is None:
            return None
        loader = cls("")
        try:
            return loader.construct_document(node)
        finally:
            loader.dispose()

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.events.AliasEvent):
            event: Any = self.peek_event()  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(
                None, None, f"'*{event.anchor}' repeats another value; write the value again", event.start_mark
            )
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str | int | float | bool | None):
                raise yaml.constructor.ConstructorError(None, None, "a key must be a word", key_node.start_mark)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is given twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


for _tag, _pattern, _first in (
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF"),
    ("int", r"^[-+]?[0-9]+$", "-+0123456789"),
    ("float", r"^[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$", "-+.0123456789"),
    ("null", r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), list(_first))


def _compose(file: Path) -> yaml.Node | None:
    try:
        size = file.stat().st_size
        if size > _MAX_BYTES:
            raise RecipeError(f"{file} is {size / 1e6:.1f} MB; a recipe has at most 1 MB.")
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        near = difflib.get_close_matches(file.name, _siblings(file), n=1)
        hint = f" Did you mean {file.parent / near[0]}?" if near else ""
        raise RecipeError(f"{file} does not exist.{hint}") from None
    except IsADirectoryError:
        raise RecipeError(f"{file} is a directory; a recipe is one YAML file.") from None
    except UnicodeDecodeError as error:
        raise RecipeError(f"{file} is not UTF-8 (byte {error.start}).") from error
    except OSError as error:
        raise RecipeError(f"{file} can't be read: {error.strerror}.") from error
    try:
        return yaml.compose(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise RecipeError(_yaml_problem(file, error)) from error
    except RecursionError:
        raise RecipeError(f"{file} is nested too deeply to be a recipe.") from None


def _siblings(file: Path) -> list[str]:
    return [entry.name for entry in file.parent.glob("*.y*ml")] if file.parent.is_dir() else []


def _yaml_problem(file: Path, error: yaml.YAMLError) -> str:
    if isinstance(error, yaml.reader.ReaderError):
        before = file.read_text(encoding="utf-8")[: error.position]
        line, column = before.count("\n") + 1, error.position - before.rfind("\n")
        return f"{file}:{line}:{column}: a character that YAML doesn't allow: U+{error.character:04X}."
    mark = getattr(error, "problem_mark", None)
    where = f"{file}:{mark.line + 1}:{mark.column + 1}" if mark else str(file)
    return f"{where}: {getattr(error, 'problem', None) or error}."


def _anchor_files(values: dict[Any, Any], folder: Path) -> None:
    loadtest = values.get("loadtest")
    if isinstance(loadtest, dict):
        _anchor(loadtest.get("arrivals"), ("source",), folder)
    for section, keys in (
        ("base", ("model",)),
        ("data", ("source", "test_source")),
        ("export", ("unlabelled",)),
    ):
        _anchor(values.get(section), keys, folder)
    serve = values.get("serve")
    files: dict[str, tuple[str, ...]] = {"auth": ("keys", "jwks"), "tls": ("certificate", "key", "client_ca")}
    for section, names in files.items():
        part = serve.get(section) if isinstance(serve, dict) else None
        if not isinstance(part, dict):
            continue
        for key in names:
            if isinstance(part.get(key), str) and part[key]:
                part[key] = str((folder / Path(part[key]).expanduser()).absolute())


def _anchor(part: Any, keys: Sequence[str], folder: Path) -> None:
    for key in keys if isinstance(part, dict) else ():
        reference = part.get(key)
        if isinstance(reference, str) and reference.startswith("file:") and len(reference) > len("file:"):
            path = Path(reference.removeprefix("file:")).expanduser()
            part[key] = f"file:{path if path.is_absolute() else (folder / path).absolute()}"


def _anchor_capture(values: dict[Any, Any], folder: Path) -> None:
    part: Any = values
    for name in ("serve", "observe", "capture"):
        part = part.get(name) if isinstance(part, dict) else None
    if isinstance(part, dict) and isinstance(part.get("directory"), str) and part["directory"]:
        part["directory"] = str((folder / Path(part["directory"]).expanduser()).absolute())


def _explain(file: Path, node: yaml.Node | None, problem: ErrorDetails) -> str:
    arms = tuple(part for part in problem["loc"] if not _is_union_arm(part))
    location = problem.get("ctx", {}).get("field") or _without_tags(node, arms)
    field = ".".join(str(part) for part in location) or "recipe"
    line = _line_of(node, location)
    return f"{file}:{line}: {field}: {_reason(problem, location, arms)}"


def _is_union_arm(part: str | int) -> bool:
    return isinstance(part, str) and ("[" in part or part in ("constrained-str", "constrained-int", "function-after"))


def _without_tags(node: yaml.Node | None, location: Path_) -> Path_:
    """`location` without the names of the kinds of section that were chosen (`process: ramp`), which are no fields."""
    kept: list[str | int] = []
    for part in location:
        if isinstance(node, yaml.ScalarNode) and node.value == part:
            continue
        if isinstance(node, yaml.MappingNode):
            entries = {key.value: value for key, value in node.value}
            chosen = {value.value for value in entries.values() if isinstance(value, yaml.ScalarNode)}
            if part not in entries and part in chosen:
                continue
            node = entries.get(part)
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
        else:
            node = None
        kept.append(part)
    return tuple(kept)


def _reason(problem: ErrorDetails, location: Path_, arms: Path_) -> str:
    kind, value, context = problem["type"], problem["input"], problem.get("ctx", {})
    shown = _shorten(value)
    if kind == "extra_forbidden":
        allowed = _fields_at(arms[:-1])
        near = difflib.get_close_matches(str(location[-1]), allowed, n=1, cutoff=0.5)
        hint = f" Did you mean {near[0]}?" if near else ""
        return f"unknown field.{hint} Allowed: {', '.join(allowed)}."
    if kind in ("missing", "union_tag_not_found"):
        tag = context.get("discriminator")
        return f"{tag} is required and is not there." if tag else "is required and is not there."
    if kind == "union_tag_invalid":
        context = {"expected": context["expected_tags"], "value": context["tag"]}
    if kind in ("literal_error", "not_allowed", "union_tag_invalid"):
        allowed = context.get("allowed") or [
            word.strip().strip("'") for word in context["expected"].replace(" or ", ", ").split(",")
        ]
        value = context.get("value", value)
        near = difflib.get_close_matches(str(value), allowed, n=1, cutoff=0.5)
        hint = f" Did you mean {near[0]}?" if near else ""
        return f"{_shorten(value)} is not allowed; allowed: {', '.join(allowed)}.{hint}"
    if kind == "value_error":
        return f"{str(context['error']).rstrip('.')}."
    if kind.endswith(("_type", "_parsing")):
        wanted = problem["msg"].removeprefix("Input ").replace("an object", "a mapping")
        return f"{shown} is {_type_name(value)}; {wanted}."
    return f"{shown}: {problem['msg'].removeprefix('Input ')}."


def _shorten(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 80 else text[:77] + "…"


def _type_name(value: Any) -> str:
    names = {
        str: "a text",
        bool: "true/false",
        int: "a whole number",
        float: "a number",
        list: "a list",
        dict: "a mapping",
    }
    return names.get(type(value), "empty")


def _fields_at(location: Path_) -> Sequence[str]:
    """Names of the fields that the recipe has at `location`, in which a union's choice is named, too."""
    models: list[type[BaseModel]] = [Recipe]
    for part in location:
        chosen = [model for model in models if _is_chosen(model, part)]
        if len(models) > 1 and chosen:
            models = chosen
            continue
        found = next((model.model_fields[str(part)] for model in models if str(part) in model.model_fields), None)
        models = list(_models_in(found.annotation)) if found else []
        if not models:
            return []
    return list(dict.fromkeys(name for model in models for name in model.model_fields))


def _is_chosen(model: type[BaseModel], tag: str | int) -> bool:
    return any(field.default == tag for name, field in model.model_fields.items() if name in _TAGS)


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is not None:
        for argument in typing.get_args(annotation):
            yield from _models_in(argument)


def _line_of(node: yaml.Node | None, location: Path_) -> int:
    """Line (from 1) of the deepest part of `location` that the file has."""
    line = 1
    for part in location:
        if isinstance(node, yaml.MappingNode):
            entry = next(((key, value) for key, value in node.value if key.value == str(part)), None)
            if entry is None:
                return line
            line, node = entry[0].start_mark.line + 1, entry[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
        else:
            return line
    return line
