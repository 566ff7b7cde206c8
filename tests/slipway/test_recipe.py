"""A wrong recipe is refused before any work starts, with all that a person needs to mend it."""

import json
from pathlib import Path

import pytest

from slipway.errors import RecipeError
from slipway.recipe import LoadTest, Recipe, load_recipe, load_settings, recipe_schema
from slipway.recipe.reference import reference_page

pytestmark = pytest.mark.unit

RECIPE = """\
name: reviews
base:
  model: file:base
data:
  source: file:reviews.csv
  label: stars
train:
  epochs: 2
"""


def problem_of(tmp_path: Path, text: str) -> str:
    file = tmp_path / "recipe.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(RecipeError) as caught:
        load_recipe(file)
    return str(caught.value)


def test_defaults_fill_what_is_left_out(tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(RECIPE, encoding="utf-8")
    recipe = load_recipe(file)
    assert recipe.train.epochs == 2
    assert recipe.loadtest.protocols == ["grpc", "http"]


def test_files_are_taken_from_the_recipes_folder(tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(RECIPE, encoding="utf-8")
    assert load_recipe(file).data.source == f"file:{tmp_path}/reviews.csv"


def test_the_recipe_of_the_demo_is_valid() -> None:
    recipe = load_recipe(Path(__file__).parents[2] / "examples" / "reviews.yaml")
    assert list(recipe.data.classes or {}) == ["negative", "neutral", "positive"]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            ("epochs: 2", "epoch: 2"),
            ["recipe.yaml:8: train.epoch: unknown field. Did you mean epochs?", "batch_size"],
        ),
        (("train:", "trian:"), ["recipe.yaml:7: trian: unknown field. Did you mean train?"]),
        (("epochs: 2", "epochs: many"), ["recipe.yaml:8: train.epochs", '"many" is a text', "number"]),
        (("epochs: 2", 'epochs: "2"'), ["recipe.yaml:8: train.epochs", '"2" is a text']),
        (("epochs: 2", "epochs: -1"), ["recipe.yaml:8: train.epochs", "-1", "greater than 0"]),
        (("epochs: 2", "epochs: .nan"), ["recipe.yaml:8: train.epochs", "number"]),
        (
            ("epochs: 2", "precision: fp23"),
            ['"fp23" is not allowed; allowed: auto, fp32, bf16.', "Did you mean fp32?"],
        ),
        (("epochs: 2", "metric: f1"), ['recipe.yaml:8: train.metric: "f1"', "allowed: accuracy, macro_f1, mcc"]),
        (("epochs: 2", "metric: acuracy"), ["Did you mean accuracy?"]),
        (
            ("train:", "export: {at: 0x5}\ntrain:"),
            ["recipe.yaml:7: export.at: at is '0x5'; allowed: batch x tokens, such"],
        ),
        (("train:", "export: {at: 1x1}\ntrain:"), ["tokens, such as 1x128, of 1 to 9999 texts of 2 to 9999 tokens"]),
        (("label: stars", "label: text"), ["recipe.yaml:4: data:", "same column 'text'"]),
        (("label: stars", "format: ratings"), ["data:", "needs classes"]),
        (("label: stars", "classes: {a: [0, 2], b: [1, 3]}"), ["classes 'a' and 'b' overlap"]),
        (("label: stars", "classes: {a: [2, 0], b: [2, 3]}"), ["class 'a' is empty"]),
        (("label: stars", "classes: {a: [0, 2]}"), ["classes needs at least two"]),
        (("label: stars", "split: {dev: 0.6, test: 0.5}"), ["dev + test is 1.1"]),
        (("label: stars", "test_sha256: " + "a" * 64), ["test_sha256 is given without test_source"]),
        (("label: stars", "sha256: abc"), ["data.sha256", '"abc"']),
        (
            ("file:base", "bert-base-uncased"),
            ["base.model", "hub:org/name@revision, file:path, or pypi:name==version/path"],
        ),
        (("file:base", "hub:org/name"), ["has no revision"]),
        (("file:base", "pypi:name==1/model"), ["base: pypi:name==1/model needs a sha256"]),
        (("name: reviews", "name: My Reviews!"), ["recipe.yaml:1: name", "My Reviews!", "a-z, 0-9, _ and -"]),
        (("name: reviews", "task: classify"), ['task: "classify" is not', "allowed: sequence-classification"]),
        (("label: stars", "format: csv\n  subset: en"), ["recipe.yaml:4: data: subset", "dataset", "csv"]),
        (
            ("label: stars", "format: ratings\n  classes: {a: [0, 2], b: [2, 3]}\n  time: when"),
            ["data: time is given, but format 'ratings' has no time column"],
        ),
        (("train:", "export: &it {budget: 1}\ntrain: *it"), ["recipe.yaml:8:8: '*it'", "write the value again"]),
        (("train:\n  epochs: 2", "train: &it\n  epochs: *it"), ["recipe.yaml:8:11: '*it'"]),
        (("epochs: 2", "<<: {epochs: 2}"), ["recipe.yaml:8: train.<<: unknown field"]),
        (("epochs: 2", "epochs: \0"), ["recipe.yaml:8:11: a character that YAML doesn't allow: U+0000."]),
        (("name: reviews\n", ""), ["name: is required"]),
        (("base:\n  model: file:base\n", ""), ["base: is required"]),
        (("epochs: 2", "epochs: 2\n  epochs: 3"), ["recipe.yaml:9", "'epochs' is given twice"]),
        (("train:", "train: ["), ["recipe.yaml:9:1: expected ',' or ']'"]),
        (("name: reviews", "name: !!python/object/apply:os.system [ls]"), ["recipe.yaml:1"]),
        (("train:\n  epochs: 2", "train:"), ["recipe.yaml:7: train: null is empty; should be a mapping"]),
    ],
)
def test_a_mistake_is_named_with_its_place(tmp_path: Path, change: tuple[str, str], expected: list[str]) -> None:
    problem = problem_of(tmp_path, RECIPE.replace(*change))
    for part in expected:
        assert part in problem


def test_every_mistake_is_listed_at_once(tmp_path: Path) -> None:
    problem = problem_of(tmp_path, RECIPE.replace("epochs: 2", "epoch: 2\n  batch_size: 0"))
    assert len(problem.splitlines()) == 2


@pytest.mark.parametrize("text", ["", "just a text", "- a\n- b", "42"])
def test_something_else_than_a_mapping_is_refused(tmp_path: Path, text: str) -> None:
    assert "a recipe is a mapping" in problem_of(tmp_path, text)


def test_a_recipe_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_bytes("name: café".encode("latin-1"))
    with pytest.raises(RecipeError, match="not UTF-8"):
        load_recipe(file)


def test_a_file_too_large_to_be_a_recipe_is_refused_unread(tmp_path: Path) -> None:
    problem = problem_of(tmp_path, RECIPE + "# a table, perhaps\n" * 60_000)
    assert "is 1.1 MB; a recipe has at most 1 MB" in problem


def test_every_problem_is_one_line(tmp_path: Path) -> None:
    assert len(problem_of(tmp_path, "name: a\0b").splitlines()) == 1


def test_a_missing_recipe_gets_the_nearest_name(tmp_path: Path) -> None:
    (tmp_path / "reviews.yaml").write_text(RECIPE)
    with pytest.raises(RecipeError, match=r"Did you mean .*reviews\.yaml"):
        load_recipe(tmp_path / "review.yaml")


def test_numbers_in_scientific_notation_are_numbers(tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(RECIPE.replace("epochs: 2", "learning_rate: 1e-4"), encoding="utf-8")
    assert load_recipe(file).train.learning_rate == pytest.approx(1e-4)


def test_the_schema_describes_every_field() -> None:
    schema = recipe_schema()
    assert set(schema["properties"]) == set(Recipe.model_fields)
    assert "weight_decay" in json.dumps(schema)
    assert schema["additionalProperties"] is False


def test_a_change_of_one_section_changes_only_the_stages_that_read_it(tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(RECIPE, encoding="utf-8")
    before = load_recipe(file)
    file.write_text(RECIPE + "export: {budget: 2}\n", encoding="utf-8")
    after = load_recipe(file)
    assert before.stage_inputs("train") == after.stage_inputs("train")
    assert before.stage_inputs("export") != after.stage_inputs("export")


def test_the_page_about_recipes_is_what_the_models_say() -> None:
    page = Path(__file__).parents[2] / "docs" / "recipe.md"
    assert page.read_text(encoding="utf-8") == reference_page(), "python -m slipway.recipe.reference > docs/recipe.md"


def test_a_machine_that_only_serves_needs_no_base_and_no_data(tmp_path: Path) -> None:
    file = tmp_path / "serve.yaml"
    file.write_text("serve: {port: 9000, observe: {logs: json}}\n", encoding="utf-8")
    settings = load_settings(file)
    assert (settings.serve.port, settings.serve.observe.logs) == (9000, "json")
    assert settings.loadtest == LoadTest()


def test_settings_that_say_more_must_be_a_whole_recipe(tmp_path: Path) -> None:
    file = tmp_path / "serve.yaml"
    file.write_text("name: reviews\nserve: {port: 9000}\n", encoding="utf-8")
    with pytest.raises(RecipeError, match="base"):
        load_settings(file)


def test_a_wrong_word_in_settings_is_named_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "serve.yaml"
    file.write_text("serve:\n  prot: 9000\n", encoding="utf-8")
    with pytest.raises(RecipeError, match=r"serve\.yaml:2: serve\.prot: .*port"):
        load_settings(file)


@pytest.mark.parametrize("value", ["1e999", "1.0e+400"])
def test_a_number_without_end_is_none(tmp_path: Path, value: str) -> None:
    text = f"{RECIPE}loadtest:\n  slo: {{p99_ms: {value}}}\n"
    assert "finite number" in problem_of(tmp_path, text)
