"""A disk that fills up in a search: nothing half-written stays, and the search goes on when there is room."""

import errno
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import export
from export.measurement.memory import Memory
from export.search import speed
from export.search.workers import run_jobs
from slipway.artifacts import Artifact, read_artifact
from slipway.errors import ExportError
from slipway.places import is_full_disk
from slipway.recipe import Export

pytestmark = pytest.mark.integration

SECTION = Export(effort="quick", budget=20.0, min_agreement=0.5, engines=["onnxruntime"])

PLACES = (
    "structures/.dense.",
    "variants/.int8-static@ort.",
    "structures/teacher-",
    "structures/c20.distillation/",
    "structures/.c20.",
    "variants/.c20-int8-dynamic-e4@ort.",
    ".bundle-checkpoint.tmp-",
    ".bundle.tmp-",
)
"""What is written when there is no more room, in the order in which a search comes to it."""


class Disk:
    """Full for files whose path has `full` in it: a few bytes of them are written, and then no more."""

    full = "nothing"

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        patch.setattr(shutil, "copyfile", self._limited(shutil.copyfile, 1))
        patch.setattr(Path, "write_bytes", self._limited(Path.write_bytes, 0))
        patch.setattr(Path, "write_text", self._limited(Path.write_text, 0))

    def _limited(self, write: Callable[..., Any], place: int) -> Callable[..., Any]:
        def limited(*arguments: Any, **options: Any) -> Any:
            file = Path(arguments[place])
            if self.full not in str(file):
                return write(*arguments, **options)
            with file.open("wb") as stream:
                stream.write(b"half")
            raise OSError(errno.ENOSPC, "No space left on device", str(file))

        return limited


def half_written(folder: Path) -> list[Path]:
    hidden = [entry for entry in folder.rglob(".*") if not entry.name.startswith(".bundle.search-")]
    return [*hidden, *folder.rglob("*.partial")]


@pytest.mark.slow
def test_a_search_goes_on_when_there_is_room_again(
    tiny_checkpoint: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for measured in ("session_memory", "torch_memory"):  # a process for each variant, which has no part in this
        monkeypatch.setattr(speed, measured, lambda *_, **__: Memory(1.0, 1.0))
    disk = Disk(monkeypatch)
    for place in PLACES:
        disk.full = place
        with pytest.raises((OSError, ExportError)) as caught:
            export.export(tiny_checkpoint.path, tmp_path / "bundle", SECTION)
        assert is_full_disk(caught.value), place
        assert half_written(tmp_path) == [], place
        assert [entry.name for entry in tmp_path.glob("bundle*")] == [], place
    made = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("made.json")}
    disk.full = "nothing"
    export.export(tiny_checkpoint.path, tmp_path / "bundle", SECTION)
    read_artifact(tmp_path / "bundle", "bundle")
    read_artifact(tmp_path / "bundle-checkpoint", "checkpoint")
    assert len(made) >= 5
    assert {file: file.stat().st_mtime_ns for file in made} == made


def wrapped() -> None:
    raise ExportError("this variant can't be made") from OSError(errno.ENOSPC, "No space left on device")


def other() -> None:
    raise ExportError("this variant can't be made")


@pytest.mark.parametrize("workers", [1, 2])
def test_a_full_disk_in_a_job_is_no_variant_that_is_left_out(workers: int) -> None:
    with pytest.raises(ExportError) as caught:
        dict(run_jobs({"one": partial(wrapped), "two": partial(wrapped)}, workers))
    assert is_full_disk(caught.value)
    left_out = dict(run_jobs({"one": partial(other), "two": partial(other)}, workers))
    assert [str(error) for error in left_out.values()] == ["this variant can't be made"] * 2
