"""Tables: every format gives the same rows, and what can't be understood is named with its place."""

import csv
import gzip
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from slipway.errors import DataError
from slipway.recipe import Data, load_recipe
from training.tables import Table, read_table

pytestmark = pytest.mark.unit

TEXTS = [
    "plain",
    "一部好电影，值得看",
    "😀👩‍💻",
    'quotes "inside", commas',
    "two\nlines",
    "tab\tinside",
    "nul\0inside",
    "x" * 100_000,
    "line separator\u2028inside",
    "carriage\rreturn",
]
LABELS = ["good", "bad"] * 5


def write_csv(file: Path, rows: list[dict[str, Any]], delimiter: str = ",") -> None:
    with file.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)


def write_tsv(file: Path, rows: list[dict[str, Any]]) -> None:
    write_csv(file, rows, "\t")


def write_jsonl(file: Path, rows: list[dict[str, Any]]) -> None:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def write_array(file: Path, rows: list[dict[str, Any]]) -> None:
    file.write_text("\n " + json.dumps(rows, ensure_ascii=False, indent=1), encoding="utf-8")


def write_parquet(file: Path, rows: list[dict[str, Any]]) -> None:
    pq.write_table(pa.Table.from_pylist(rows), file)


def zipped(write: Callable[[Path, list[dict[str, Any]]], None]) -> Callable[[Path, list[dict[str, Any]]], None]:
    def write_zipped(file: Path, rows: list[dict[str, Any]]) -> None:
        write(file, rows)
        file.write_bytes(gzip.compress(file.read_bytes()))

    return write_zipped


def read(file: Path, **fields: Any) -> Table:
    return read_table(Data(source=f"file:{file}", **fields))


def problem(file: Path, **fields: Any) -> str:
    with pytest.raises(DataError) as caught:
        read(file, **fields)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def csv_file(folder: Path, content: str | bytes, name: str = "t.csv") -> Path:
    file = folder / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return file


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("t.csv", write_csv),
        ("t.tsv", write_tsv),
        ("t.jsonl", write_jsonl),
        ("t.json", write_array),
        ("t.parquet", write_parquet),
        ("t.csv.gz", zipped(write_csv)),
        ("T.JSONL.GZ", zipped(write_jsonl)),
    ],
)
class TestEveryFormat:
    def test_every_character_of_every_text_survives(self, tmp_path: Path, name: str, write: Any) -> None:
        write(tmp_path / name, [{"text": t, "label": label} for t, label in zip(TEXTS, LABELS, strict=True)])
        table = read(tmp_path / name)
        assert table.texts == TEXTS
        assert table.labels == LABELS
        assert table.rows_read == 10

    def test_rows_without_text_are_dropped_and_counted(self, tmp_path: Path, name: str, write: Any) -> None:
        rows = [{"text": t, "label": label} for t, label in [("a", "x"), ("", "x"), (" \n\u3000", "y"), ("b", "y")]]
        write(tmp_path / name, rows)
        table = read(tmp_path / name)
        assert table.texts == ["a", "b"]
        assert table.dropped == {"empty_text": 2}

    def test_a_missing_column_is_told_the_columns_and_the_nearest(self, tmp_path: Path, name: str, write: Any) -> None:
        write(tmp_path / name, [{"text": "a", "Sentiment": "x"}] * 2)
        said = problem(tmp_path / name, label="sentiment")
        assert "no column 'sentiment' (data.label)" in said
        assert "'text', 'Sentiment'" in said
        assert "nearest name is Sentiment" in said

    def test_one_class_only_is_refused(self, tmp_path: Path, name: str, write: Any) -> None:
        write(tmp_path / name, [{"text": "a", "label": "x"}] * 3)
        assert "all 3 rows have the label 'x'" in problem(tmp_path / name)

    def test_numbers_become_classes(self, tmp_path: Path, name: str, write: Any) -> None:
        write(tmp_path / name, [{"text": "a", "label": value} for value in (-4.0, -0.5, 0.4, 0.5)])
        classes = {"negative": (None, -0.5), "neutral": (-0.5, 0.5), "positive": (0.5, None)}
        assert read(tmp_path / name, classes=classes).labels == ["negative", "neutral", "neutral", "positive"]

    def test_a_number_outside_all_classes_is_named(self, tmp_path: Path, name: str, write: Any) -> None:
        write(tmp_path / name, [{"text": "a", "label": value} for value in (1.0, 5.5)])
        said = problem(tmp_path / name, classes={"low": (0.0, 2.0), "high": (2.0, 5.0)})
        assert "5.5" in said
        assert "low: [0, 2), high: [2, 5)" in said

    def test_an_id_in_place_of_a_label_is_noticed(self, tmp_path: Path, name: str, write: Any) -> None:
        write(tmp_path / name, [{"text": "a", "label": f"user-{i}"} for i in range(20)])
        assert "20 different values in 20 rows" in problem(tmp_path / name)

    def test_times_are_read(self, tmp_path: Path, name: str, write: Any) -> None:
        rows = [
            {"text": "a", "label": "x", "t": "2024-05-31"},
            {"text": "b", "label": "y", "t": "2024-05-31T02:00+02:00"},
        ]
        write(tmp_path / name, rows)
        midnight = datetime(2024, 5, 31, tzinfo=UTC).timestamp()
        assert read(tmp_path / name, time="t").times == [midnight, midnight]

    def test_a_time_that_is_none_is_named(self, tmp_path: Path, name: str, write: Any) -> None:
        write(
            tmp_path / name, [{"text": "a", "label": "x", "t": "2024"}, {"text": "b", "label": "y", "t": "yesterday"}]
        )
        said = problem(tmp_path / name, time="t")
        assert "'yesterday'" in said
        assert "ISO 8601" in said


class TestSeparated:
    def test_a_byte_order_mark_is_not_part_of_the_header(self, tmp_path: Path) -> None:
        assert read(csv_file(tmp_path, b"\xef\xbb\xbftext,label\na,x\nb,y\n")).texts == ["a", "b"]

    def test_windows_line_ends_and_blank_lines(self, tmp_path: Path) -> None:
        assert read(csv_file(tmp_path, "text,label\r\na,x\r\n\r\nb,y\r\n")).labels == ["x", "y"]

    def test_bytes_that_are_not_utf8_are_found(self, tmp_path: Path) -> None:
        said = problem(csv_file(tmp_path, b"text,label\nok,x\ncaf\xe9,y\n"))
        assert "line 3, byte 4 of the line: 0xe9 is not UTF-8" in said

    def test_utf16_is_recognised(self, tmp_path: Path) -> None:
        assert "is UTF-16" in problem(csv_file(tmp_path, "text,label\na,x\n".encode("utf-16")))

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            (b"PK\x03\x04\x14\x00\x06\x00\x84", "is a ZIP archive, as Excel's .xlsx files are"),
            (gzip.compress(b"text,label\na,x\n"), "packed with gzip. End its name in .gz"),
            ("text,label\na,x\n".encode("utf-32"), "is UTF-32"),
            ("text,label\n好,x\n差,y\n".encode("utf-16-le"), "is UTF-16LE"),
        ],
        ids=["zip", "gzip", "utf-32", "utf-16-le"],  # bytes that hold a time would name the test after the clock
    )
    def test_what_is_no_text_at_all_is_recognised(self, tmp_path: Path, content: bytes, said: str) -> None:
        assert said in problem(csv_file(tmp_path, content))

    def test_labels_that_look_the_same_are_refused(self, tmp_path: Path) -> None:
        said = problem(csv_file(tmp_path, "text,label\na,bad\nb,bad\u200b\nc,good\n"))
        assert "has the labels 'bad' and 'bad\\u200b', which look the same" in said
        assert "look the same" in problem(csv_file(tmp_path, "text,label\na,caf\u00e9\nb,cafe\u0301\n"))

    def test_a_ragged_row_is_found_by_the_line_it_begins_on(self, tmp_path: Path) -> None:
        said = problem(csv_file(tmp_path, 'text,label\n"a\nb",x\nc,y,z\n'))
        assert "t.csv, line 4: 3 fields, but the header has 2" in said

    def test_a_quote_that_never_ends_is_found_by_the_line_it_begins_on(self, tmp_path: Path) -> None:
        assert "begins on line 3" in problem(csv_file(tmp_path, 'text,label\na,x\n"b,y\nc,x\n'))

    def test_a_column_that_is_there_twice(self, tmp_path: Path) -> None:
        assert "2 columns named 'label'" in problem(csv_file(tmp_path, "text,label,label\na,x,y\n"))

    def test_semicolons_are_recognised(self, tmp_path: Path) -> None:
        assert "separated by semicolons" in problem(csv_file(tmp_path, "text;label\na;x\n"))

    def test_an_empty_file_and_one_of_a_header_only(self, tmp_path: Path) -> None:
        assert "not even a header" in problem(csv_file(tmp_path, ""))
        assert "has no rows" in problem(csv_file(tmp_path, "text,label\n"))
        assert "none has a text" in problem(csv_file(tmp_path, "text,label\n,x\n ,y\n"))

    def test_an_empty_first_line_is_no_header(self, tmp_path: Path) -> None:
        assert "t.csv begins with an empty line" in problem(csv_file(tmp_path, "\ntext,label\na,x\n"))

    def test_a_label_as_long_as_a_text_is_none(self, tmp_path: Path) -> None:
        said = problem(csv_file(tmp_path, "text,label\na,x\nb," + "good " * 50 + "\n"))
        assert "t.csv, line 3" in said
        assert "holds 249 characters" in said

    def test_a_subset_of_what_has_none(self, tmp_path: Path) -> None:
        said = problem(csv_file(tmp_path, "text,label\na,x\nb,y\n"), subset="en")
        assert "data.subset is 'en'" in said
        assert "is csv, which has no subsets" in said

    def test_a_row_without_label_is_an_error(self, tmp_path: Path) -> None:
        assert "t.csv, line 3: column 'label'" in problem(csv_file(tmp_path, "text,label\na,x\nb, \n"))

    def test_white_space_around_labels_goes(self, tmp_path: Path) -> None:
        assert read(csv_file(tmp_path, "text,label\na,x \nb, x\nc,y\n")).labels == ["x", "x", "y"]

    def test_several_files_by_pattern(self, tmp_path: Path) -> None:
        csv_file(tmp_path, "text,label\na,x\n", "1.csv")
        csv_file(tmp_path, "label,text\ny,b\n", "2.csv")
        assert read(tmp_path / "*.csv").texts == ["a", "b"]

    def test_a_gzip_that_was_cut_off(self, tmp_path: Path) -> None:
        write_csv(tmp_path / "t.csv", [{"text": f"text {i}", "label": "x"} for i in range(1000)])
        cut = csv_file(tmp_path, gzip.compress((tmp_path / "t.csv").read_bytes())[:-20], "t.csv.gz")
        assert "can't be unpacked as gzip" in problem(cut)

    def test_a_name_that_tells_no_format(self, tmp_path: Path) -> None:
        assert "set data.format" in problem(csv_file(tmp_path, "text,label\n", "t.txt"))


class TestJson:
    def test_a_label_column_has_one_type(self, tmp_path: Path) -> None:
        file = csv_file(tmp_path, '{"text": "a", "label": "x"}\n\n{"text": "b", "label": 1}\n', "t.jsonl")
        assert "t.jsonl, line 3: column 'label' (data.label) holds 1, a number, while t.jsonl, line 1" in problem(file)

    @pytest.mark.parametrize(
        ("values", "labels"),
        [((0, 1), ["0", "1"]), ((True, False), ["true", "false"]), ((1.0, 2), ["1", "2"]), ((0.5, 1), ["0.5", "1"])],
    )
    def test_labels_become_strings(self, tmp_path: Path, values: tuple[Any, ...], labels: list[str]) -> None:
        write_jsonl(tmp_path / "t.jsonl", [{"text": "a", "label": value} for value in values])
        assert read(tmp_path / "t.jsonl").labels == labels

    @pytest.mark.parametrize("value", [None, [], {}, float("nan"), "", "a\nb", "\x1b[31m"])
    def test_what_is_no_label(self, tmp_path: Path, value: Any) -> None:
        write_jsonl(tmp_path / "t.jsonl", [{"text": "a", "label": "x"}, {"text": "b", "label": value}])
        assert "line 2: column 'label' (data.label) holds" in problem(tmp_path / "t.jsonl")

    def test_a_text_that_is_no_text(self, tmp_path: Path) -> None:
        write_jsonl(tmp_path / "t.jsonl", [{"text": 5, "label": "x"}])
        assert "line 1: column 'text' (data.text) holds 5, which is not text" in problem(tmp_path / "t.jsonl")

    def test_half_an_emoji(self, tmp_path: Path) -> None:
        assert "lone surrogate" in problem(csv_file(tmp_path, '{"text": "a\\ud83d", "label": "x"}', "t.jsonl"))

    def test_a_missing_key_is_found_by_line(self, tmp_path: Path) -> None:
        file = csv_file(tmp_path, '{"text": "a", "label": "x"}\n{"text": "b", "lable": "y"}\n', "t.jsonl")
        assert "t.jsonl, line 2 has no column 'label'" in problem(file)

    @pytest.mark.parametrize("line", ["{", "[" * 100_000, '{"text": "a" "label"}', "5"])
    def test_what_is_no_record(self, tmp_path: Path, line: str) -> None:
        problem(csv_file(tmp_path, '{"text": "a", "label": "x"}\n' + line, "t.jsonl"))

    def test_an_object_over_several_lines_is_told_what_is_allowed(self, tmp_path: Path) -> None:
        content = json.dumps({"data": [{"text": "a", "label": "x"}]}, indent=1)
        assert "one object per line, or one array of objects" in problem(csv_file(tmp_path, content, "t.json"))

    def test_a_number_of_thousands_of_digits(self, tmp_path: Path) -> None:
        said = problem(csv_file(tmp_path, '{"text": "a", "label": ' + "1" * 5000 + "}", "t.jsonl"))
        assert "line 1: holds a number of thousands of digits" in said


class TestParquet:
    def test_a_text_column_of_another_type(self, tmp_path: Path) -> None:
        write_parquet(tmp_path / "t.parquet", [{"text": 1, "label": "x"}])
        assert "column 'text' (data.text) holds int64, not text" in problem(tmp_path / "t.parquet")

    def test_a_file_that_is_none(self, tmp_path: Path) -> None:
        assert "can't be read as Parquet" in problem(csv_file(tmp_path, b"PAR1", "t.parquet"))

    def test_categories_and_timestamps(self, tmp_path: Path) -> None:
        text = pa.array(["a", "b"]).dictionary_encode()
        when = pa.array([datetime(2024, 1, 1), datetime(2024, 1, 2)])
        pq.write_table(
            pa.table({"text": text, "label": pa.array(["x", "y"]).dictionary_encode(), "t": when}),
            tmp_path / "t.parquet",
        )
        table = read(tmp_path / "t.parquet", time="t")
        assert table.labels == ["x", "y"]
        assert table.times == [datetime(2024, 1, day, tzinfo=UTC).timestamp() for day in (1, 2)]

    @pytest.mark.parametrize(
        "kind", [pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.large_string())], ids=str
    )
    def test_strings_of_any_kind(self, tmp_path: Path, kind: pa.DataType) -> None:
        columns = {"text": ["a", "b"], "label": ["x", "y"]}
        table = pa.table({name: pa.array(values, pa.large_string()).cast(kind) for name, values in columns.items()})
        pq.write_table(table, tmp_path / "t.parquet")
        assert read(tmp_path / "t.parquet").labels == ["x", "y"]

    def test_a_folder_of_parts(self, tmp_path: Path) -> None:
        for part, label in enumerate("xy"):
            write_parquet(tmp_path / f"part-{part}.parquet", [{"text": f"{part}", "label": label}])
        (tmp_path / "_SUCCESS").touch()
        assert read(tmp_path, format="parquet").texts == ["0", "1"]


class TestRatings:
    classes: ClassVar = {"bad": (None, 0.0), "good": (0.0, None)}

    def test_several_files_with_windows_line_ends(self, tmp_path: Path) -> None:
        (tmp_path / "a_Truth.txt").write_bytes(b'1_1\t-0.9\t"stray quote\r\n1_2\t1.5\twith\ttab\r\n')
        (tmp_path / "b_Truth.txt").write_bytes("2\t0\t中文\r\n".encode())
        table = read(tmp_path / "*_Truth.txt", format="ratings", classes=self.classes)
        assert table.texts == ['"stray quote', "with\ttab", "中文"]
        assert table.labels == ["bad", "good", "good"]

    def test_a_line_of_two_fields_is_found(self, tmp_path: Path) -> None:
        (tmp_path / "r.txt").write_bytes(b"1\t1\ta\n2\t2\n")
        said = problem(tmp_path / "r.txt", format="ratings", classes=self.classes)
        assert "r.txt, line 2: 2 tab-separated fields" in said

    def test_a_rating_that_is_no_number_is_found(self, tmp_path: Path) -> None:
        (tmp_path / "r.txt").write_bytes(b"1\t1\ta\n2\tgood\tb\n")
        assert "r.txt, line 2: column" in problem(tmp_path / "r.txt", format="ratings", classes=self.classes)


class TestTestSource:
    def test_its_rows_are_test(self, tmp_path: Path) -> None:
        csv_file(tmp_path, "text,label\na,x\nb,y\n")
        csv_file(tmp_path, "text,label\nc,y\n", "test.csv")
        table = read(tmp_path / "t.csv", test_source=f"file:{tmp_path}/test.csv")
        assert table.texts == ["a", "b", "c"]
        assert table.given == [None, None, "test"]
        assert table.rows_read == 3


class TestDatasets:
    pytestmark = pytest.mark.integration

    def test_splits_and_class_names_of_one_saved_to_disk(self, tmp_path: Path) -> None:
        datasets = pytest.importorskip("datasets")
        features = datasets.Features(
            {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["neg", "pos"])}
        )

        def rows(*texts: str, labels: list[int]) -> Any:
            return datasets.Dataset.from_dict({"text": list(texts), "label": labels}, features=features)

        datasets.DatasetDict(
            {
                "train": rows("a", "b", labels=[0, 1]),
                "validation": rows("c", labels=[1]),
                "test": rows("d", labels=[-1]),
                "unsupervised": rows("e", labels=[-1]),
            }
        ).save_to_disk(str(tmp_path / "saved"))
        table = read(tmp_path / "saved")
        assert table.labels == ["neg", "pos", "pos"]
        assert table.given == ["train", "train", "dev"]

    def test_a_folder_of_split_files(self, tmp_path: Path) -> None:
        pytest.importorskip("datasets")
        (tmp_path / "data").mkdir()
        write_csv(tmp_path / "data" / "train.csv", [{"text": "a", "label": "x"}, {"text": "b", "label": "y"}])
        write_csv(tmp_path / "data" / "test.csv", [{"text": "c", "label": "x"}])
        table = read(tmp_path)
        assert dict(zip(table.texts, table.given, strict=True)) == {"a": "train", "b": "train", "c": "test"}

    def test_a_subset(self, tmp_path: Path) -> None:
        pytest.importorskip("datasets")
        for subset in ("en", "zh"):
            (tmp_path / subset).mkdir()
            write_csv(tmp_path / subset / "all.csv", [{"text": subset, "label": "x"}, {"text": subset, "label": "y"}])
        configs = "".join(f"- config_name: {name}\n  data_files: {name}/*.csv\n" for name in ("en", "zh"))
        (tmp_path / "README.md").write_text(f"---\nconfigs:\n{configs}---\n", encoding="utf-8")
        table = read(tmp_path, subset="zh")
        assert table.texts == ["zh", "zh"]
        assert table.given == [None, None]
        assert "en" in problem(tmp_path, subset="fr")

    def test_a_folder_without_tables(self, tmp_path: Path) -> None:
        pytest.importorskip("datasets")
        (tmp_path / "weights.bin").write_bytes(b"")
        assert "can't be read as a dataset" in problem(tmp_path)


@pytest.mark.integration
def test_the_default_recipe_reads_all_of_its_rated_sentences() -> None:
    table = read_table(load_recipe(Path(__file__).parents[2] / "examples" / "reviews.yaml").data)
    assert table.rows_read == len(table.texts) == 23_703
    assert set(table.labels) == {"negative", "neutral", "positive"}
