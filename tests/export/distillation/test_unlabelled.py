"""Unlabelled texts are read as they are, or refused with what is wrong with their table."""

from pathlib import Path

import pytest

from export.distillation.unlabelled import unlabelled_texts
from slipway.errors import ExportError
from slipway.recipe import Export

pytestmark = pytest.mark.unit


def read(file: Path, content: bytes) -> list[str]:
    file.write_bytes(content)
    return unlabelled_texts(Export(unlabelled=f"file:{file}"), [])


def test_texts_with_line_breaks_stay_whole_however_long_the_table_is(tmp_path: Path) -> None:
    texts = [f"{number}, a film\nof two lines {'x' * 200}" for number in range(10_000)]
    table = "text\n" + "".join(f'"{text}"\n' for text in texts)
    assert read(tmp_path / "texts.csv", table.encode()) == texts


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"text,text\na,b\n", "has 2 columns 'text'"),
        ("text\ncafé\n".encode("latin-1"), "is not UTF-8"),
        (b"text\n1\n", "holds int64, not text"),
    ],
)
def test_a_table_that_cannot_be_read_is_refused(content: bytes, said: str, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=said):
        read(tmp_path / "texts.csv", content)
