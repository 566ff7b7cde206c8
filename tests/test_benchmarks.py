"""Benchmarks run by hand and seldom; what they take from Slipway must still be where they take it from."""

import importlib
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[1]
# `serving/peers/` runs in environments of its own.
MODULES = sorted(
    ".".join(file.relative_to(ROOT).with_suffix("").parts)
    for room in ("export", "loadtests", "serving", "training")
    for file in (ROOT / "benchmarks" / room).glob("*.py")
)


@pytest.mark.parametrize("module", MODULES)
def test_a_benchmark_can_be_imported(module: str) -> None:
    importlib.import_module(module)
