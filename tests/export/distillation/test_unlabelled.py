"""Unlabelled texts are refused with what is wrong with their table."""

from pathlib import Path

import pytest

from export.distillation.unlabelled import unlabelled_texts
from slipway.errors import ExportError
from slipway.recipe import Export

pytestmark = pytest.mark.unit


def read(file: Path, content: bytes) -> list[str]:
    file.write_bytes(content)
    return unlabelled_texts(Export(unlabelled=f"file:{file}"), [])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"text,text\na,b\n", "export.unlabelled: .*two columns named 'text'"),
        (b"words\na\n", "has no column 'text'"),
        (b"text\n1\n", "holds int64, not text"),
    ],
)
def test_a_table_that_cannot_be_read_is_refused(content: bytes, said: str, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=said):
        read(tmp_path / "texts.csv", content)
