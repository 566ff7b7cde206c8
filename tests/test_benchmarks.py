"""Benchmarks run by hand and seldom; what they take from Slipway must still be where they take it from.

They are read, not imported: PyTorch, OpenVINO, gRPC and gevent in one process don't get along.
"""

import ast
import symtable
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[1]
OURS = ("slipway", "training", "export", "serving", "loadtests", "autoscaling", "benchmarks")
# `serving/peers/` runs in environments of its own.
BENCHMARKS = [file for file in sorted((ROOT / "benchmarks").rglob("*.py")) if file.parent.name != "peers"]


def taken(benchmark: Path) -> Iterator[tuple[str, str]]:
    """Modules of Slipway's and the names that are imported from them."""
    for node in ast.walk(ast.parse(benchmark.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.partition(".")[0] in OURS:
            for alias in node.names:
                yield node.module, alias.name


def has(module: str, name: str) -> bool:
    folder = ROOT.joinpath(*module.split("."))
    if folder.joinpath(name).is_dir() or folder.joinpath(f"{name}.py").is_file():
        return True
    file = folder / "__init__.py" if folder.is_dir() else folder.with_suffix(".py")
    if not file.is_file():
        return False
    known = symtable.symtable(file.read_text(encoding="utf-8"), str(file), "exec")
    bound = [symbol for symbol in known.get_symbols() if symbol.is_assigned() or symbol.is_imported()]
    return name in {symbol.get_name() for symbol in bound}


@pytest.mark.parametrize("benchmark", BENCHMARKS, ids=lambda file: f"{file.parent.name}/{file.stem}")
def test_what_a_benchmark_imports_is_there(benchmark: Path) -> None:
    assert [f"{module}.{name}" for module, name in taken(benchmark) if not has(module, name)] == []
