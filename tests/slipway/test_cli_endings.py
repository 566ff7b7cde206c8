"""Endings of a command: an exit code for each, and one line that says what to do."""

import ast
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from slipway.cli_endings import EXTRAS, ending
from slipway.errors import GateError, SlipwayError

pytestmark = pytest.mark.unit

STAGES = ("slipway", "training", "export", "serving", "loadtests", "autoscaling", "deployment")
ALWAYS_INSTALLED = {
    "click", "httpx", "numpy", "packaging", "pyarrow", "pydantic", "pydantic_core", "rich", "tenacity", "yaml",
}  # fmt: skip
BROUGHT_BY_OTHERS = {"pandas", "triton_python_backend_utils"}
"""A caller who has a data frame; Triton, to its models."""


def raising(error: BaseException) -> Callable[[], object]:
    def command() -> object:
        raise error

    return command


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        (lambda: None, 0, ""),
        (lambda: 2, 2, ""),
        (raising(SlipwayError("mend it.")), 1, "error: mend it."),
        (raising(GateError("nothing passed.")), 3, "error: nothing passed."),
        (raising(click.UsageError("no such option")), 1, "no such option"),
        (raising(KeyboardInterrupt()), 130, "interrupted"),
        (lambda: signal.raise_signal(signal.SIGINT), 130, "interrupted"),
        (lambda: signal.raise_signal(signal.SIGTERM), 143, "terminated"),
        (raising(ModuleNotFoundError(name="grpc")), 1, "pip install 'slipway[serve]'"),
        (raising(FileNotFoundError(2, "No such file or directory", "in.csv")), 1, "in.csv: No such file"),
    ],
)
def test_an_ending_has_its_code_and_its_line(
    command: Callable[[], object], code: int, said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert ending(command) == code
    printed = capfd.readouterr().err
    assert said in printed if said else not printed


def test_a_bug_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        ending(lambda: 1 // 0)
    with pytest.raises(ModuleNotFoundError):
        ending(raising(ModuleNotFoundError(name="slipway.nothing")))


def test_signals_are_handled_as_before_afterwards() -> None:
    before = signal.getsignal(signal.SIGTERM)
    ending(lambda: signal.raise_signal(signal.SIGTERM))
    assert signal.getsignal(signal.SIGTERM) is before


def test_every_library_is_always_installed_or_has_its_extra_told() -> None:
    known = {*sys.stdlib_module_names, *STAGES, *ALWAYS_INSTALLED, *BROUGHT_BY_OTHERS, *EXTRAS}
    root = Path(__file__).parents[2]
    for file in (file for stage in STAGES for file in (root / stage).rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module is not None:
                names = [node.module]
            unknown = {name.partition(".")[0] for name in names} - known
            assert not unknown, file
