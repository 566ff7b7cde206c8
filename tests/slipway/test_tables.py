"""A user's tables are read as they are, or refused with what is wrong with them."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from slipway.errors import DataError
from slipway.tables import read_table

pytestmark = pytest.mark.unit

TEXTS = ["plain", '两行\n"引号"', "a, b"]


@pytest.mark.parametrize("name", ["t.csv", "T.CSV", "t.jsonl", "t.log", "t.parquet"])
def test_every_kind_of_table_holds_the_same_texts(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    if name.endswith("parquet"):
        pq.write_table(pa.table({"text": TEXTS}), file)
    elif name.lower().endswith("csv"):
        quoted = ['"' + text.replace('"', '""') + '"' for text in TEXTS]
        file.write_text("\n".join(["text", *quoted]) + "\n", encoding="utf-8")
    else:
        file.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS), encoding="utf-8")
    assert read_table(file)["text"].to_pylist() == TEXTS


@pytest.mark.parametrize(
    "kind",
    [
        pa.large_string(),
        pa.string_view(),
        pa.dictionary(pa.int32(), pa.string()),
        pa.dictionary(pa.int8(), pa.large_string()),
    ],
    ids=str,
)
def test_texts_may_be_categories_or_strings_of_any_kind(tmp_path: Path, kind: pa.DataType) -> None:
    pq.write_table(pa.table({"text": pa.array([*TEXTS, None], pa.large_string()).cast(kind)}), tmp_path / "t.parquet")
    table = read_table(tmp_path / "t.parquet")
    assert table["text"].to_pylist() == [*TEXTS, None]
    assert pa.types.is_string(table["text"].type) or pa.types.is_large_string(table["text"].type)


def test_categories_of_numbers_are_numbers(tmp_path: Path) -> None:
    pq.write_table(pa.table({"time": pa.array([3, 1, 3]).dictionary_encode()}), tmp_path / "t.parquet")
    assert read_table(tmp_path / "t.parquet")["time"].type == pa.int64()


def test_texts_with_line_breaks_stay_whole_however_long_the_table_is(tmp_path: Path) -> None:
    texts = [f"{number}, a film\nof two lines {'x' * 200}" for number in range(10_000)]
    (tmp_path / "t.csv").write_text("text\n" + "".join(f'"{text}"\n' for text in texts), encoding="utf-8")
    assert read_table(tmp_path / "t.csv")["text"].to_pylist() == texts


def test_a_log_that_is_still_written_to_is_read_up_to_its_last_whole_line(tmp_path: Path) -> None:
    log, lines = tmp_path / "access.log", [f'{{"time": {second}}}\n' for second in range(3)]
    for cut, whole in (("", [0, 1, 2]), (lines[0][:5], [0, 1, 2]), (lines[0].rstrip(), [0, 1, 2, 0])):
        log.write_text("".join(lines) + cut, encoding="utf-8")
        assert read_table(log)["time"].to_pylist() == whole
    log.write_text(lines[0] + lines[1][:5] + "\n" + lines[2], encoding="utf-8")
    with pytest.raises(DataError, match=r"access\.log can't be read"):
        read_table(log)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("t.csv", b"text,text\na,b\n", "has two columns named 'text'"),
        ("t.csv", "text\ncafé\n".encode("latin-1"), "column 'text' is not UTF-8"),
        ("t.csv", b"", "can't be read: Empty CSV file"),
        ("t.log", b"", "can't be read: Empty JSON file"),
        ("t.parquet", b"no", "can't be read"),
        ("t.xlsx", b"", r"allowed: \.parquet, \.csv, \.jsonl, \.log"),
        ("t.csv", None, "does not exist"),
    ],
)
def test_a_table_that_cannot_be_read_is_refused(tmp_path: Path, name: str, content: bytes | None, said: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=said):
        read_table(tmp_path / name)
