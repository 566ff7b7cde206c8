"""Fixtures that are expensive and shared: a tiny recipe, its checkpoint and its bundle."""

from pathlib import Path

import pytest

from slipway.artifacts import Artifact
from slipway.recipe import load_recipe
from tests.tiny_base import write_tiny_recipe


@pytest.fixture(scope="session")
def tiny_recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe with a base and a table beside it, small enough to train in seconds. Read only."""
    return write_tiny_recipe(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def tiny_checkpoint(tiny_recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """The checkpoint of the tiny recipe. Read only."""
    import training

    return training.train(load_recipe(tiny_recipe), tmp_path_factory.mktemp("run") / "checkpoint")


@pytest.fixture(scope="session")
def exported_bundle(tiny_checkpoint: Artifact, tiny_recipe: Path) -> Artifact:
    """The bundle of the tiny checkpoint. Read only."""
    import export

    section = load_recipe(tiny_recipe).export
    return export.export(tiny_checkpoint.path, tiny_checkpoint.path.parent / "bundle", section)
