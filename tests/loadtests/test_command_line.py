"""`slipway loadtest` as its user types it: what is written, and the exit code that a pipeline acts on."""

import json
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import pytest

from slipway.bundle import Bundle
from slipway.cli import main
from tests.loadtests.conftest import WriteTexts
from tests.loadtests.fake_endpoint import fake_endpoint

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with fake_endpoint() as address:
        yield address


def code_of(*arguments: object) -> int:
    with pytest.raises(SystemExit) as caught:
        main(["loadtest", *map(str, arguments)])
    return int(caught.value.code or 0)


def recipe(folder: Path, loadtest: str) -> Path:
    file = folder / "recipe.yaml"
    file.write_text(
        "name: tiny\nbase: {model: file:base}\ndata: {source: file:table.csv, text: text, label: label}\n"
        f"loadtest: {{rate: 80, duration_s: 1, warmup_s: 0.2, protocols: [http], {loadtest}}}\n"
    )
    return file


@pytest.mark.parametrize(
    ("loadtest", "code", "tag"),
    [
        ("max_dispatch_lag_ms: 1.0e+9, slo: {p99_ms: 60000}", 0, None),
        ("max_dispatch_lag_ms: 1.0e+9, slo: {p99_ms: 0.001}", 2, "failure"),
        ("max_dispatch_lag_ms: 0.00001, slo: {p99_ms: 60000}", 3, "error"),
    ],
)
def test_the_exit_code_and_the_files_say_the_same(
    bundle: Bundle, address: str, tmp_path: Path, write_texts: WriteTexts, loadtest: str, code: int, tag: str | None
) -> None:
    options = ["--address", address, "--texts", write_texts(["fine", "very fine"]), "--out", tmp_path / "verdict"]
    options += ["--recipe", recipe(tmp_path, loadtest), "--junit", tmp_path / "j.xml", "--json", tmp_path / "o.json"]
    assert code_of(bundle.path, *options) == code
    assert json.loads((tmp_path / "o.json").read_text())["exit_code"] == code
    root = ET.parse(tmp_path / "j.xml").getroot()  # noqa: S314  (written a moment ago)
    assert {element.tag for element in root.iter() if element.tag in ("failure", "error")} == ({tag} if tag else set())


def test_run_may_be_said_and_may_be_left_out(bundle: Bundle, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([bundle.path], ["run", bundle.path]):
        assert code_of(*arguments, "--address", "127.0.0.1:1") == 1
        assert "Nothing answers" in capsys.readouterr().err


def test_an_address_alone_has_nothing_to_be_held_to(capsys: pytest.CaptureFixture[str]) -> None:
    assert code_of("compare", "127.0.0.1:8001", "127.0.0.1:8002") == 1
    assert "write BUNDLE@127.0.0.1:8001" in capsys.readouterr().err


def test_a_quantity_that_can_not_be_is_told_by_its_option(bundle: Bundle, capsys: pytest.CaptureFixture[str]) -> None:
    assert code_of(bundle.path, "--capacity", "--at-least", "-5") == 1
    assert "--at-least" in capsys.readouterr().err
    assert code_of("compare", bundle.path, bundle.path, "--pairs", "1") == 1
    assert "--pairs" in capsys.readouterr().err


@pytest.mark.slow
def test_two_bundles_are_served_side_by_side_for_their_comparison(
    bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    section = "max_dispatch_lag_ms: 1.0e+9, compare: {pairs: 4, block_s: 0.5, warmup_s: 0.2}"
    out = tmp_path / "comparison"
    code = code_of("compare", bundle.path, bundle.path, "--recipe", recipe(tmp_path, section), "--out", out)
    assert code == 0
    assert capsys.readouterr().out.strip().endswith(str(out))
    found = json.loads((out / "comparison.json").read_text())
    assert found["a"]["endpoint"]["address"] != found["b"]["endpoint"]["address"]
    assert found["pairs"] == 4
    assert (out / "report.html").is_file()


@pytest.mark.parametrize("option", [("--slo", "p99=inf"), ("--at-least", "5"), ("--time-budget", "5m")])
def test_a_wish_that_would_not_be_judged_is_refused_in_one_line(
    bundle: Bundle, address: str, capsys: pytest.CaptureFixture[str], option: tuple[str, str]
) -> None:
    assert code_of(bundle.path, "--address", address, "--duration", 1, *option) == 1
    refusal = [line for line in capsys.readouterr().err.splitlines() if line]
    assert option[0] in refusal[-1]


@pytest.mark.parametrize("command", ["run", "compare"])
@pytest.mark.parametrize("option", ["--json", "--junit"])
@pytest.mark.parametrize(("place", "why"), [("folder", "it is a folder"), ("file/x", "file is not a folder")])
def test_a_file_that_can_not_be_written_is_refused_before_any_load(
    bundle: Bundle,
    address: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    command: str,
    option: str,
    place: str,
    why: str,
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("")
    contender = f"{bundle.path}@{address}"
    sides = [contender, contender] if command == "compare" else [bundle.path, "--address", address]
    out = tmp_path / "artifact"
    assert (
        code_of(command, *sides, "--recipe", recipe(tmp_path, "seed: 1"), option, tmp_path / place, "--out", out) == 1
    )
    [line] = [line for line in capsys.readouterr().err.splitlines() if line]
    assert f"{place} can't be written: " in line
    assert why in line
    assert not out.exists()


@pytest.mark.parametrize("option", ["--json", "--junit"])
def test_a_file_within_the_artifact_is_refused_as_the_artifact_would_not_be_whole(
    bundle: Bundle, address: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    options = ["--address", address, "--recipe", recipe(tmp_path, "seed: 1"), "--out", tmp_path / "verdict"]
    assert code_of(bundle.path, *options, option, tmp_path / "verdict" / "outcome") == 1
    assert "lies in the artifact" in capsys.readouterr().err
    assert not (tmp_path / "verdict").exists()
