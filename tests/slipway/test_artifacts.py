"""Artifacts: whole or not at all, verified when read, walked back to their data."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from slipway.artifacts import (
    Artifact,
    code_version,
    inputs_digest,
    library_versions,
    lineage,
    parent_of_kind,
    read_artifact,
    reusable,
    write_artifact,
)
from slipway.errors import ArtifactError
from slipway.places import is_full_disk

pytestmark = pytest.mark.unit


def make(
    path: Path, kind: str = "checkpoint", parents: list[Artifact] | None = None, text: str = "weights"
) -> Artifact:
    with write_artifact(path, kind, name="reviews", inputs="abc", parents=parents) as draft:  # type: ignore[arg-type]
        (draft.path / "model.bin").write_text(text, encoding="utf-8")
        draft.write_json("labels.json", ["差评", "好评"])
        draft.metrics["accuracy"] = 0.75
    return read_artifact(path)


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    artifact = make(tmp_path / "checkpoint")
    assert artifact.json("labels.json") == ["差评", "好评"]
    assert artifact.manifest.metrics == {"accuracy": 0.75}
    assert set(artifact.manifest.files) == {"model.bin", "labels.json"}


def test_an_artifact_of_another_kind_is_not_replaced(tmp_path: Path) -> None:
    checkpoint = make(tmp_path / "checkpoint")
    with pytest.raises(ArtifactError, match=r"checkpoint is a checkpoint; a bundle will not replace it"):
        make(checkpoint.path, "bundle")
    assert read_artifact(checkpoint.path).digest == checkpoint.digest


def test_a_changed_file_is_named(tmp_path: Path) -> None:
    artifact = make(tmp_path / "checkpoint")
    (artifact.path / "model.bin").write_text("weighTs", encoding="utf-8")
    with pytest.raises(ArtifactError, match=r"model\.bin has changed"):
        read_artifact(artifact.path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    artifact = make(tmp_path / "checkpoint")
    (artifact.path / "model.bin").unlink()
    with pytest.raises(ArtifactError, match=r"model\.bin is missing"):
        read_artifact(artifact.path)


def test_an_added_file_is_named(tmp_path: Path) -> None:
    artifact = make(tmp_path / "checkpoint")
    (artifact.path / "payload.py").touch()
    with pytest.raises(ArtifactError, match=r"payload\.py does not belong"):
        read_artifact(artifact.path)


def test_the_wrong_kind_is_refused(tmp_path: Path) -> None:
    make(tmp_path / "checkpoint")
    with pytest.raises(ArtifactError, match="is a checkpoint, not a bundle"):
        read_artifact(tmp_path / "checkpoint", "bundle")


@pytest.mark.parametrize("content", ["", "{", "[]", '{"kind": "checkpoint"}'])
def test_a_broken_manifest_is_one_clear_error(tmp_path: Path, content: str) -> None:
    (tmp_path / "manifest.json").write_text(content, encoding="utf-8")
    with pytest.raises(ArtifactError, match="can't be read"):
        read_artifact(tmp_path)


@pytest.mark.parametrize("failure", [KeyboardInterrupt, RuntimeError, OSError])
def test_a_writer_that_fails_leaves_the_old_artifact_and_nothing_else(
    tmp_path: Path, failure: type[BaseException]
) -> None:
    old = make(tmp_path / "checkpoint")

    def fail_half_way() -> None:
        with write_artifact(old.path, "checkpoint", name="reviews", inputs="new") as draft:
            (draft.path / "model.bin").write_text("half")
            raise failure

    with pytest.raises(failure):
        fail_half_way()
    assert read_artifact(old.path).digest == old.digest
    assert [entry.name for entry in tmp_path.iterdir()] == ["checkpoint"]


def test_a_writer_that_fails_takes_back_the_folders_that_it_made(tmp_path: Path) -> None:
    with (
        pytest.raises(KeyboardInterrupt),
        write_artifact(tmp_path / "runs" / "reviews" / "verdict", "verdict", name="reviews", inputs="new"),
    ):
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_no_artifact_is_never_replaced(tmp_path: Path) -> None:
    thesis = tmp_path / "thesis.doc"
    thesis.write_text("years of work")
    with (
        pytest.raises(ArtifactError, match="not an artifact"),
        write_artifact(tmp_path, "report", name="r", inputs="i"),
    ):
        pass
    assert thesis.read_text() == "years of work"


def test_what_a_killed_writer_left_is_cleared_by_the_next(tmp_path: Path) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    (tmp_path / f".checkpoint.tmp-{ended.pid}-xyz").mkdir()
    make(tmp_path / "checkpoint")
    assert [entry.name for entry in tmp_path.iterdir()] == ["checkpoint"]


def test_an_old_artifact_set_aside_by_a_killed_writer_is_put_back(tmp_path: Path) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    old = make(tmp_path / "checkpoint")
    old.path.rename(tmp_path / f".checkpoint.old-{ended.pid}")
    with pytest.raises(RuntimeError), write_artifact(old.path, "checkpoint", name="reviews", inputs="new"):
        raise RuntimeError
    assert read_artifact(tmp_path / "checkpoint").digest == old.digest


def test_lineage_leads_from_a_verdict_to_its_checkpoint(tmp_path: Path) -> None:
    checkpoint = make(tmp_path / "checkpoint")
    bundle = make(tmp_path / "bundle", "bundle", [checkpoint])
    verdict = make(tmp_path / "verdict", "verdict", [bundle])
    assert [(depth, parent.kind) for depth, parent, _ in lineage(verdict)] == [
        (1, "bundle"),
        (2, "checkpoint"),
    ]
    found = parent_of_kind(verdict, "checkpoint")
    assert found is not None
    assert found.digest == checkpoint.digest


def test_lineage_does_not_lead_to_a_parent_that_was_made_again(tmp_path: Path) -> None:
    bundle = make(tmp_path / "bundle", "bundle", [make(tmp_path / "checkpoint")])
    make(tmp_path / "checkpoint", text="other weights")
    assert [found for _, _, found in lineage(bundle)] == [None]


def test_an_artifact_is_reused_only_for_the_same_inputs_and_intact(tmp_path: Path) -> None:
    artifact = make(tmp_path / "checkpoint")
    assert reusable(artifact.path, "checkpoint", "abc") is not None
    assert reusable(artifact.path, "checkpoint", "abd") is None
    (artifact.path / "model.bin").write_text("altered")
    assert reusable(artifact.path, "checkpoint", "abc") is None


def test_inputs_depend_on_recipe_parents_and_outside_content(tmp_path: Path) -> None:
    parent = make(tmp_path / "checkpoint")
    digests = {
        inputs_digest("export", {"budget": 1}, [parent]),
        inputs_digest("export", {"budget": 2}, [parent]),
        inputs_digest("export", {"budget": 1}, []),
        inputs_digest("training", {"budget": 1}, [parent]),
        inputs_digest("export", {"budget": 1}, [parent], assets={"data": "1"}),
    }
    assert len(digests) == 5
    assert inputs_digest("export", {"budget": 1}, [parent]) in digests


def test_inputs_depend_on_what_a_file_holds_and_not_on_where_it_lies() -> None:
    def inputs(reference: str, content: str) -> str:
        return inputs_digest("training", {"data": {"source": reference}}, [], assets={"data": content})

    assert inputs("file:/here/table.csv", "1") == inputs("file:/elsewhere/table.csv", "1")
    assert inputs("file:/here", "1") == inputs("file:/moved", "1")
    others = {
        inputs("file:/here/table.csv", "1"),
        inputs("file:/here/table.csv", "2"),
        inputs("file:/here/table.jsonl", "1"),
        inputs("hub:org/table@1", "1"),
        inputs("hub:org/table@2", "1"),
    }
    assert len(others) == 5


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting needs root")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk_keeps_the_old_artifact_and_nothing_half_written(small_disk: Path) -> None:
    old = make(small_disk / "checkpoint")
    with (
        pytest.raises(OSError, match="No space left") as caught,
        write_artifact(old.path, "checkpoint", name="reviews", inputs="new") as draft,
    ):
        (draft.path / "model.bin").write_bytes(os.urandom(2 << 20))
    assert is_full_disk(caught.value)
    assert read_artifact(old.path).digest == old.digest
    assert [entry.name for entry in small_disk.iterdir()] == ["checkpoint"]


@pytest.mark.parametrize("stage", ["training", "report"])
def test_the_code_version_is_the_same_in_every_process(stage: str) -> None:
    command = [sys.executable, "-c", f"from slipway.artifacts import code_version; print(code_version({stage!r}))"]
    versions = {
        subprocess.run(command, env=os.environ | {"PYTHONHASHSEED": seed}, capture_output=True, check=True).stdout
        for seed in ("1", "2", "3", "4", "5")
    }
    assert len(versions) == 1


def test_stages_have_different_code() -> None:
    assert len({code_version(stage) for stage in ("training", "export", "serving", "loadtests", "report")}) == 5


def test_what_quantizes_and_serves_is_recorded_with_its_version() -> None:
    assert {"onnxruntime", "openvino", "nncf", "optimum-onnx"} <= library_versions().keys()
