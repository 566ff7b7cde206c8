"""Where something is to be written, and why it could not be."""

import errno
from pathlib import Path

import pytest

from slipway.places import folder_for, is_full_disk, replacing

pytestmark = pytest.mark.unit


def test_a_full_disk_is_recognised_behind_a_librarys_own_error() -> None:
    wrapped = RuntimeError("writing tensors failed")
    wrapped.__cause__ = OSError(errno.ENOSPC, "No space left on device")
    assert is_full_disk(wrapped)
    assert is_full_disk(RuntimeError("IoError(Os { code: 28, message: No space left on device })"))
    torch_says = "[enforce fail at inline_container.cc:672] . unexpected pos 119872 vs 119764"
    assert is_full_disk(RuntimeError(torch_says))
    assert not is_full_disk(OSError(errno.EACCES, "denied"))


def test_a_folder_comes_whole_or_not_at_all(tmp_path: Path) -> None:
    place = tmp_path / "deep" / "down" / "place"
    with pytest.raises(IsADirectoryError), replacing(place) as scratch:
        scratch.write_bytes(b"half")
    assert not any(tmp_path.iterdir())
    with replacing(place) as scratch:
        (scratch / "file").write_text("whole", encoding="utf-8")
        assert not place.exists()
    assert [file.read_text(encoding="utf-8") for file in place.iterdir()] == ["whole"]
    assert [each.name for each in place.parent.iterdir()] == ["place"]


def test_of_folders_that_were_made_only_empty_ones_go(tmp_path: Path) -> None:
    with folder_for(tmp_path / "a" / "b" / "file"):
        (tmp_path / "a" / "kept").touch()
    assert [each.name for each in (tmp_path / "a").iterdir()] == ["kept"]
