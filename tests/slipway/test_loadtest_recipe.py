"""What a recipe may say about a load test, and how a mistake in it is named."""

from pathlib import Path

import pytest

from slipway.errors import RecipeError
from slipway.recipe import LoadTest, load_recipe
from slipway.recipe.arrivals import Poisson, Replay, Spikes
from slipway.recipe.traffic import HotKeys
from tests.slipway.test_recipe import RECIPE

pytestmark = pytest.mark.unit


def loadtest_of(tmp_path: Path, section: str) -> LoadTest:
    file = tmp_path / "recipe.yaml"
    file.write_text(f"{RECIPE}loadtest:\n{section}", encoding="utf-8")
    return load_recipe(file).loadtest


def problem_of(tmp_path: Path, section: str) -> str:
    with pytest.raises(RecipeError) as caught:
        loadtest_of(tmp_path, section)
    return str(caught.value).removeprefix(str(tmp_path / "recipe.yaml"))


def test_a_choice_is_a_name_or_a_section(tmp_path: Path) -> None:
    assert loadtest_of(tmp_path, "  arrivals: poisson\n").arrivals == Poisson()
    assert loadtest_of(tmp_path, "  arrivals: spikes\n").arrivals == Spikes()
    section = "  arrivals:\n    process: spikes\n    height: 9\n  traffic:\n    mix: hot-keys\n    exponent: 2\n"
    assert loadtest_of(tmp_path, section).arrivals == Spikes(height=9.0)
    assert loadtest_of(tmp_path, section).traffic == HotKeys(exponent=2.0)


def test_a_recording_is_taken_from_the_recipes_folder(tmp_path: Path) -> None:
    found = loadtest_of(tmp_path, "  arrivals: {process: replay, source: 'file:access.log'}\n").arrivals
    assert found == Replay(source=f"file:{tmp_path}/access.log")


def test_sizes_of_requests_are_a_number_or_weights(tmp_path: Path) -> None:
    assert loadtest_of(tmp_path, "  batch_size: 4\n").batch_sizes == {4: 1.0}
    assert loadtest_of(tmp_path, "  batch_size: {1: 3, 8: 1}\n").batch_sizes == {1: 0.75, 8: 0.25}


@pytest.mark.parametrize(
    ("section", "problem"),
    [
        ("  arrivals: bursts\n", ':10: loadtest.arrivals: "bursts" is not allowed; allowed: poisson, constant, ramp'),
        ("  arrivals:\n    height: 3\n", ":10: loadtest.arrivals: 'process' is required and is not there."),
        (
            "  arrivals:\n    process: spikes\n    hight: 3\n",
            ":12: loadtest.arrivals.hight: unknown field. Did you mean height? Allowed: process, height, every_s",
        ),
        (
            "  arrivals:\n    process: diurnal\n    depth: 3\n",
            ":12: loadtest.arrivals.depth: 3: should be less than or equal to 1.",
        ),
        ("  arrivals: replay\n", ":10: loadtest.arrivals.source: is required and is not there."),
        ("  traffic: hot\n", ':10: loadtest.traffic: "hot" is not allowed; allowed: natural, cache-busting, hot-keys.'),
        ("  arrivals: spikes\n  duration_s: 15\n", "the first spike begins after 15 s, half of every_s, and 15 s are"),
        ("  batch_size: 0\n", ":10: loadtest.batch_size: 0: should be greater than or equal to 1."),
        ("  batch_size: 4\n  protocols: [generate]\n", "generate takes one text a request"),
        ("  slo: {goodput: 0.9}\n", "set goodput_ms, or p99_ms"),
        ("  loop: closed\n  users: 1\n  workers: 2\n", "at least one user for each worker"),
        ("  credentials: {}\n", "set environment or file"),
    ],
)
def test_a_mistake_is_named_with_its_place(tmp_path: Path, section: str, problem: str) -> None:
    assert problem in problem_of(tmp_path, section)
