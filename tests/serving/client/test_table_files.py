"""Files of rows: what was there stays, answers are added, nothing half-written is left."""

import csv
import gzip
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serving import Answer, EndpointUnavailableError
from serving.client import table_files
from serving.client.table_files import score_file
from slipway.errors import DataError

pytestmark = [pytest.mark.unit]

FIELDS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r"), max_size=8)


def classify(texts: Iterator[str]) -> Iterator[Answer]:
    return (Answer(text[::-1], 0.25, False, "7") for text in texts)


def write_csv(file: Path, rows: list[list[str]]) -> Path:
    with file.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows(rows)
    return file


def read_csv(file: Path) -> list[list[str]]:
    with file.open(encoding="utf-8", newline="") as stream:
        return list(csv.reader(stream))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(FIELDS, FIELDS), min_size=1, max_size=20))
def test_the_fields_of_a_csv_stay_as_they_are(tmp_path: Path, rows: list[tuple[str, str]]) -> None:
    source = write_csv(tmp_path / "in.csv", [["id", "text"], *map(list, rows)])
    assert score_file(source, tmp_path / "out.csv", classify)[0] == len(rows)
    header, *found = read_csv(tmp_path / "out.csv")
    assert header == ["id", "text", "label", "score", "truncated", "version"]
    assert [tuple(row[:2]) for row in found] == rows
    assert [row[2] for row in found] == [text[::-1] if text.strip() else "" for _, text in rows]


def test_numbers_in_a_csv_are_not_read_as_numbers(tmp_path: Path) -> None:
    source = write_csv(tmp_path / "in.csv", [["id", "text"], ["007", "abc"], ["1e5", ""]])
    assert score_file(source, tmp_path / "out.csv", classify) == (2, 1)
    assert read_csv(tmp_path / "out.csv")[1:] == [
        ["007", "abc", "cba", "0.25", "false", "7"],
        ["1e5", "", "", "", "", ""],
    ]


def test_an_object_of_json_lines_keeps_its_keys(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"text": "abc", "nested": {"a": [1, None]}},
        {"other": 1.5, "text": None},
        {"text": "好"},
    ]
    source = tmp_path / "in.jsonl"
    source.write_text("\n".join(json.dumps(row) for row in rows) + "\n\n", encoding="utf-8")
    assert score_file(source, tmp_path / "out.jsonl", classify, prefix="p_") == (3, 2)
    found = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    new = {"p_label": None, "p_score": None, "p_truncated": None, "p_version": None}
    answer = {"p_score": 0.25, "p_truncated": False, "p_version": "7"}
    assert found == [
        rows[0] | {"p_label": "cba"} | answer,
        rows[1] | new,
        rows[2] | {"p_label": "好"} | answer,
    ]


def test_parquet_keeps_its_types(tmp_path: Path) -> None:
    table = pa.table(
        {"text": ["abc", None], "when": pa.array([0, 1], pa.timestamp("us")), "n": pa.array([1, None], pa.int8())}
    )
    pq.write_table(table, tmp_path / "in.parquet")
    assert score_file(tmp_path / "in.parquet", tmp_path / "out.parquet", classify) == (2, 1)
    found = pq.read_table(tmp_path / "out.parquet")
    assert found.select(table.schema.names).equals(table)
    assert found["label"].to_pylist() == ["cba", None]


@pytest.mark.parametrize("end", ["parquet", "csv", "tsv", "jsonl", "csv.gz", "jsonl.gz"])
@pytest.mark.parametrize("start", ["parquet", "csv", "tsv", "jsonl", "tsv.gz"])
def test_any_format_to_any(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: str, end: str) -> None:
    monkeypatch.setattr(table_files, "CHUNK_ROWS", 4)
    first = tmp_path / "first.jsonl"
    first.write_text("".join(json.dumps({"text": f"t {n}", "n": n}) + "\n" for n in range(10)))
    score_file(first, tmp_path / f"in.{start}", classify, prefix="a_")
    score_file(tmp_path / f"in.{start}", tmp_path / f"out.{end}", classify, prefix="b_")
    score_file(tmp_path / f"out.{end}", tmp_path / "last.jsonl", classify, prefix="c_")
    found = [json.loads(line) for line in (tmp_path / "last.jsonl").read_text().splitlines()]
    assert [row["text"] for row in found] == [f"t {n}" for n in range(10)]
    assert [str(row["n"]) for row in found] == [str(n) for n in range(10)]
    assert (
        [row["c_label"] for row in found] == [row["a_label"] for row in found] == [row["text"][::-1] for row in found]
    )


def test_a_failure_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table_files, "CHUNK_ROWS", 2)
    source = write_csv(tmp_path / "in.csv", [["text"], ["a"], ["b"], ["c"]])
    out = tmp_path / "out.csv"
    out.write_text("before")

    def failing(texts: Iterator[str]) -> Iterator[Answer]:
        for text in texts:
            if text == "c":
                raise EndpointUnavailableError("gone")
            yield Answer(text, 1.0)

    with pytest.raises(EndpointUnavailableError):
        score_file(source, out, failing)
    assert out.read_text() == "before"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["in.csv", "out.csv"]


def test_a_failure_takes_back_the_folders_that_were_made(tmp_path: Path) -> None:
    source = write_csv(tmp_path / "in.csv", [["text"], ["a"]])

    def interrupted(_texts: Iterator[str]) -> Iterator[Answer]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        score_file(source, tmp_path / "scored" / "today" / "out.csv", interrupted)
    assert [file.name for file in tmp_path.iterdir()] == ["in.csv"]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("in.csv", b"", "empty"),
        ("in.csv", b"text\n", "no rows"),
        ("in.csv", b"review\nabc\n", "'review'"),
        ("in.csv", b"text,text\na,b\n", "same name"),
        ("in.csv", b"text,n\na\n", "line 2"),
        ("in.csv", b"text\n\xff\n", "UTF-8"),
        ("in.csv", b"text,label\na,b\n", "prefix"),
        ("in.jsonl", b'{"text": "a"}\n{', "line 2"),
        ("in.jsonl", b"[1]\n", "line 1"),
        ("in.jsonl", b'{"text": "a"}\n{"text": 1}\n', "row 1"),
        ("in.parquet", b"nonsense", "Parquet"),
        ("in.csv.gz", b"nonsense", "gzip"),
        ("in.xlsx", b"", "format"),
    ],
)
def test_what_is_wrong_with_a_table_is_said(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=said):
        score_file(tmp_path / name, tmp_path / "out.csv", classify)
    assert not (tmp_path / "out.csv").exists()


def test_a_packed_table_is_packed_again(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "in.csv.gz", "wt", encoding="utf-8") as stream:
        stream.write("text\nabc\n")
    score_file(tmp_path / "in.csv.gz", tmp_path / "out.csv.gz", classify)
    with gzip.open(tmp_path / "out.csv.gz", "rt", encoding="utf-8") as stream:
        assert stream.read().splitlines()[1].startswith("abc,cba,")


def test_what_a_killed_run_left_is_cleared_by_the_next_and_a_living_ones_stays(tmp_path: Path) -> None:
    source, out = write_csv(tmp_path / "in.csv", [["text"], ["a"], ["b"]]), tmp_path / "out.csv"
    killed = """
import os, signal, sys
from pathlib import Path
from serving import Answer
from serving.client import table_files

table_files.CHUNK_ROWS = 1
def classify(texts):
    for text in texts:
        yield Answer(text, 0.5, False, "1") if text == "a" else os.kill(os.getpid(), signal.SIGKILL)
table_files.score_file(Path(sys.argv[1]), Path(sys.argv[2]), classify)
"""
    assert subprocess.run([sys.executable, "-c", killed, source, out], check=False).returncode == -signal.SIGKILL
    [left] = tmp_path.glob(".out.csv.*")
    living = tmp_path / f".out.csv.tmp-{os.getppid()}"
    others = [tmp_path / ".out.csv.tmp-mine", tmp_path / f".other{left.name}"]
    for file in (living, *others):
        file.write_text("kept")
    score_file(source, out, classify)
    assert sorted(tmp_path.iterdir()) == sorted([source, out, living, *others])
