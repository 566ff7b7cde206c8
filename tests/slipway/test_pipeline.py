"""The whole way on a tiny recipe: made once, reused while nothing changed, interrupted without a trace."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from slipway.artifacts import read_artifact

pytestmark = [pytest.mark.integration, pytest.mark.slow]

ARTIFACTS = ("checkpoint", "bundle", "repository", "verdict", "report")


def slipway(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "slipway", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def finished(tiny_recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    """A folder in which the tiny recipe was run, with what was printed on stdout and on stderr. Read only."""
    folder = tmp_path_factory.mktemp("whole")
    result = slipway("run", tiny_recipe, cwd=folder)
    assert result.returncode == 0, result.stderr
    return folder, result.stdout, result.stderr


@pytest.fixture
def workshop(finished: tuple[Path, str, str], tmp_path: Path) -> Path:
    """A copy of the finished run that a test may change."""
    shutil.copytree(finished[0] / "runs", tmp_path / "runs")
    return tmp_path


def artifacts_in(run: Path) -> list[str]:
    """Everything in a run's folder but the finished variants that an export keeps to go on from."""
    return sorted(entry.name for entry in run.iterdir() if not entry.name.startswith(".bundle.search-"))


def test_a_run_leaves_every_artifact_whole(finished: tuple[Path, str, str]) -> None:
    run = finished[0] / "runs" / "tiny"
    assert artifacts_in(run) == sorted(ARTIFACTS)
    for kind in ARTIFACTS:
        assert read_artifact(run / kind).manifest.kind == kind


def test_a_run_prints_one_table_and_where_things_are(finished: tuple[Path, str, str]) -> None:
    _, printed, _ = finished
    for part in ("majority", "before", "after", "compressed", "p50", "p95", "p99", "report.html", "SLO met"):
        assert part in printed


def test_a_run_asks_the_front_door_before_the_load(finished: tuple[Path, str, str]) -> None:
    assert "这部电影很好看。" in finished[2]


def test_a_second_run_reuses_everything_and_says_so(workshop: Path, tiny_recipe: Path) -> None:
    result = slipway("run", tiny_recipe, cwd=workshop)
    assert result.returncode == 0
    for stage in ("train", "export", "loadtest", "report"):
        assert f"{stage}: reusing" in result.stderr
    assert "making" not in result.stderr


def test_two_runs_at_once_make_everything_once(tiny_recipe: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "slipway", "run", str(tiny_recipe)]
    runs = [subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [run.communicate()[1] for run in runs]
    assert [run.returncode for run in runs] == [0, 0], said
    for stage in ("train", "export", "loadtest", "report"):
        assert sorted(text.count(f"{stage}: making") for text in said) == [0, 1]


def test_force_makes_a_stage_again_and_all_after_it(workshop: Path, tiny_recipe: Path) -> None:
    result = slipway("run", tiny_recipe, "--force", "loadtest", cwd=workshop)
    assert "export: reusing" in result.stderr
    assert "loadtest: making" in result.stderr
    assert "report: making" in result.stderr


def test_a_missed_objective_is_exit_code_2_and_still_reported(workshop: Path, tiny_recipe: Path) -> None:
    recipe = workshop / "strict.yaml"
    text = (
        tiny_recipe.read_text().replace("p99_ms: 5000", "p99_ms: 0.01").replace("file:", f"file:{tiny_recipe.parent}/")
    )
    recipe.write_text(text)
    result = slipway("run", recipe, cwd=workshop)
    assert result.returncode == 2, result.stderr
    assert "train: reusing" in result.stderr
    assert "MISSED" in result.stdout
    assert read_artifact(workshop / "runs" / "tiny" / "verdict").json("verdict.json")["outcome"] == "missed"


@pytest.mark.parametrize(
    ("forced", "moment", "kind"),
    [
        ("export", "export: making", "bundle"),
        ("export", "fp32@ort: ", "bundle"),
        ("loadtest", "loadtest: making", "verdict"),
        ("loadtest", "这部电影很好看。", "verdict"),
        ("report", "report: making", "report"),
    ],
)
def test_ctrl_c_keeps_the_old_artifact_and_leaves_nothing(
    workshop: Path, tiny_recipe: Path, forced: str, moment: str, kind: str
) -> None:
    before = read_artifact(workshop / "runs" / "tiny" / kind).digest
    scratch = workshop / "scratch"
    scratch.mkdir()
    shared_memory = set(Path("/dev/shm").iterdir())  # noqa: S108
    command = [sys.executable, "-m", "slipway", "run", str(tiny_recipe), "--force", forced]
    environment = os.environ | {"TMPDIR": str(scratch), "SLIPWAY_TEST": str(workshop)}
    with subprocess.Popen(command, cwd=workshop, env=environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert any(moment in line for line in process.stderr)
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
    assert process.returncode == 130, rest
    assert "Traceback" not in rest
    assert "interrupted" in rest.splitlines()[-1]
    assert read_artifact(workshop / "runs" / "tiny" / kind).digest == before
    assert artifacts_in(workshop / "runs" / "tiny") == sorted(ARTIFACTS)
    # The folder of endpoints stays, with its lock; no endpoint is in it.
    assert not [entry for entry in scratch.rglob("*") if entry.name not in (f"slipway-{os.getuid()}", "lock")]
    assert set(Path("/dev/shm").iterdir()) <= shared_memory  # noqa: S108
    assert not [child for child in psutil.process_iter() if _belongs_to(child, workshop)]


def _belongs_to(process: psutil.Process, workshop: Path) -> bool:
    try:
        return process.environ().get("SLIPWAY_TEST") == str(workshop) and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
