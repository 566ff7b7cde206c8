"""Every bad input ends with one clear line, a non-zero exit code and nothing half-written."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from slipway.artifacts import Artifact
from slipway.cli import main
from slipway.cli_loadtest import loadtest
from slipway.cli_options import override
from slipway.cli_rollout import promote
from slipway.errors import SlipwayError
from slipway.recipe import LoadTest, Rollout
from tests.tiny_base import write_tiny_recipe

pytestmark = pytest.mark.integration


def slipway(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the command line as its user does."""
    command = [sys.executable, "-m", "slipway", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def code_of(*arguments: object) -> int:
    """Exit code of the command line, run in this process."""
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    return int(caught.value.code or 0)


def assert_one_line(result: subprocess.CompletedProcess[str], *parts: str, code: int = 1) -> None:
    assert result.returncode == code, result.stderr
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, result.stderr
    assert "Traceback" not in result.stderr
    for part in parts:
        assert part in errors[0]


@pytest.fixture
def workshop(tmp_path: Path) -> Path:
    """A folder with a tiny recipe, base and table that a test may spoil."""
    write_tiny_recipe(tmp_path)
    return tmp_path


def train(workshop: Path) -> subprocess.CompletedProcess[str]:
    result = slipway("train", workshop / "tiny.yaml", "--out", workshop / "run" / "checkpoint")
    if result.returncode:
        assert not (workshop / "run" / "checkpoint").exists()
        left = list((workshop / "run").glob(".*tmp*")) if (workshop / "run").exists() else []
        assert not left
    return result


TABLES = {
    "a missing column": (b"review,star\ngood film,good\n", ["'stars'", "star"]),
    "no rows": (b"review,stars\n", ["reviews.csv"]),
    "an empty file": (b"", ["reviews.csv"]),
    "one class only": (b"review,stars\n" + b"".join(b"film %d,good\n" % i for i in range(50)), ["good"]),
    "bytes that are not UTF-8": (b"review,stars\nfilm,good\ncaf\xe9,bad\n", ["UTF-8", "3"]),
}


@pytest.mark.parametrize("name", TABLES)
def test_a_table_that_cannot_be_learned_from(workshop: Path, name: str) -> None:
    content, parts = TABLES[name]
    (workshop / "reviews.csv").write_bytes(content)
    assert_one_line(train(workshop), *parts)


def test_a_label_in_test_that_train_never_had(workshop: Path) -> None:
    (workshop / "test.csv").write_text(
        "review,stars\nnever seen film,mixed\nanother great film,good\n", encoding="utf-8"
    )
    recipe = workshop / "tiny.yaml"
    recipe.write_text(recipe.read_text().replace("label: stars", "label: stars, test_source: file:test.csv"))
    assert_one_line(train(workshop), "mixed", "test")


def test_odd_texts_are_learned_from(workshop: Path) -> None:
    odd = ["", "   ", "great " * 20_000, "👍🏽 lovely ☕", "这部电影很好，我很喜欢", '"quoted"', "null"]
    with (workshop / "reviews.csv").open("a", encoding="utf-8") as stream:
        for text in odd:
            escaped = text.replace('"', '""')
            stream.write(f'"{escaped}",good\n')
    result = train(workshop)
    assert result.returncode == 0, result.stderr


def test_a_base_that_does_not_exist(workshop: Path) -> None:
    recipe = workshop / "tiny.yaml"
    recipe.write_text(recipe.read_text().replace("file:base", "file:basis"))
    assert_one_line(train(workshop), "basis")


def test_a_recipe_with_an_unknown_key(workshop: Path) -> None:
    recipe = workshop / "tiny.yaml"
    recipe.write_text(recipe.read_text().replace("epochs", "epoch"))
    assert_one_line(train(workshop), "tiny.yaml:4", "train.epoch", "Did you mean epochs?")


def test_a_recipe_that_does_not_exist(tmp_path: Path) -> None:
    assert_one_line(slipway("run", tmp_path / "reviews.yaml"), "does not exist")


def test_an_artifact_that_was_altered(exported_bundle: Artifact, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "bundle"
    shutil.copytree(exported_bundle.path, copy)
    (copy / "bundle.json").write_text((copy / "bundle.json").read_text().replace("good", "bad "))
    assert_one_line(slipway("show", copy), "bundle.json has changed")
    assert_one_line(slipway("serve", copy, "--keyless", "--port", 0), "bundle.json has changed")
    assert_one_line(slipway("loadtest", copy), "bundle.json has changed")


def test_an_artifact_of_the_wrong_kind(tiny_checkpoint: Artifact) -> None:
    assert_one_line(slipway("serve", tiny_checkpoint.path), "is a checkpoint; a bundle or a repository can be served")


def test_a_wrong_option_is_told_like_a_wrong_field(exported_bundle: Artifact) -> None:
    assert_one_line(slipway("loadtest", exported_bundle.path, "--rate", "-5"), "--rate", "greater than 0")
    assert_one_line(slipway("loadtest", exported_bundle.path, "--slo", "p99"), "--slo", "NAME=LIMIT")
    assert_one_line(
        slipway("loadtest", exported_bundle.path, "--slo", "p98=3"),
        "p98",
        "p50_ms, p95_ms, p99_ms, p999_ms, error_rate",
    )
    assert_one_line(
        slipway("loadtest", exported_bundle.path, "--protocol", "grpc", "--protocol", "grpc"), "error: protocols names"
    )


def test_what_is_wrong_is_named_by_the_option_if_one_sets_it() -> None:
    with click.Context(loadtest.commands["run"]), pytest.raises(SlipwayError, match=r"^--protocol: "):
        override(LoadTest, LoadTest(), {"protocols": ["smtp"]})
    with click.Context(promote), pytest.raises(SlipwayError, match=r"^steps: "):
        override(Rollout, Rollout(), {"steps": [0, 100]})


def test_a_place_that_cannot_be_written_is_refused_before_the_work(workshop: Path) -> None:
    (workshop / "file").touch()
    (workshop / "mine").mkdir()
    (workshop / "mine" / "thesis.txt").touch()
    for out, reason in (
        ("file", "is not an artifact"),
        ("file/deep", "is not a folder"),
        ("mine", "is not an artifact"),
    ):
        result = slipway("train", workshop / "tiny.yaml", "--out", workshop / out)
        assert_one_line(result, out, reason)
        assert "Data:" not in result.stderr
    assert [entry.name for entry in (workshop / "mine").iterdir()] == ["thesis.txt"]


def test_a_mistyped_command_does_not_look_like_a_missed_objective() -> None:
    assert code_of("sevre") == 1


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system too small for a checkpoint."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting needs root")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_read_only_place_is_refused_before_the_work(workshop: Path, small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    result = slipway("train", workshop / "tiny.yaml", "--out", small_disk / "checkpoint")
    assert_one_line(result, str(small_disk), "is read-only")
    assert "Data:" not in result.stderr


def test_a_place_that_takes_no_files_is_refused_before_the_work(workshop: Path) -> None:
    result = slipway("train", workshop / "tiny.yaml", "--out", "/proc/checkpoint")
    assert_one_line(result, "/proc/checkpoint can't be written: /proc takes no files")
    assert "Data:" not in result.stderr


@pytest.mark.slow
def test_a_full_disk(tiny_recipe: Path, small_disk: Path) -> None:
    result = slipway("train", tiny_recipe, "--out", small_disk / "checkpoint")
    assert_one_line(result, "no space left")
    assert list(small_disk.iterdir()) == []


def test_a_background_job_of_a_script_can_be_interrupted(exported_bundle: Artifact, tmp_path: Path) -> None:
    # A shell without job control starts background jobs with SIGINT ignored.
    script = f"""
        cd {tmp_path}
        {sys.executable} -m slipway serve {exported_bundle.path} --port 0 --keyless --repository repository > curl &
        until [ -s curl ] || ! kill -0 $!; do :; done
        kill -INT $!
        wait $!
    """
    result = subprocess.run(["sh", "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stderr
    assert "Stopping." in result.stderr


def test_show_prints_manifest_and_lineage(
    exported_bundle: Artifact, tiny_checkpoint: Artifact, capsys: pytest.CaptureFixture[str]
) -> None:
    assert code_of("show", exported_bundle.path) == 0
    printed = capsys.readouterr().out
    assert exported_bundle.digest in printed
    assert f"checkpoint {tiny_checkpoint.digest[:16]}" in printed
    assert "cpu/model.onnx" in printed


def test_show_as_json_is_the_manifest(exported_bundle: Artifact, capsys: pytest.CaptureFixture[str]) -> None:
    assert code_of("show", exported_bundle.path, "--json") == 0
    assert '"kind": "bundle"' in capsys.readouterr().out


def test_the_schema_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert code_of("recipe", "schema") == 0
    assert '"learning_rate"' in capsys.readouterr().out


def test_help_needs_no_heavy_library() -> None:
    # A serving machine has neither; a person who asks for help should not wait for them anywhere.
    code = "import sys, slipway.cli; sys.exit(bool({'torch', 'transformers', 'onnxruntime'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False, env=os.environ).returncode == 0


def test_an_interrupt_while_a_text_is_executed_has_its_exit_code_too(tmp_path: Path) -> None:
    # As when a library that is being imported makes a dataclass. CPython ended by SIGINT then, after our line.
    (tmp_path / "interrupted.py").write_text(
        "import sys; from slipway.cli_endings import ending\n"
        "sys.exit(ending(lambda: exec('raise KeyboardInterrupt')))\n"
    )
    command = [sys.executable, "-m", "interrupted"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (130, 1), done.stderr
