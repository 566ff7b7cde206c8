"""What is sent, and what must come back."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from loadtests.texts import load_texts, prepared_texts, write_texts
from slipway.bundle import EXPECTED, Bundle
from slipway.errors import LoadTestError
from slipway.predictor import Predictor
from slipway.recipe import LoadTest
from tests.tiny_bundle import write_tiny_bundle

pytestmark = pytest.mark.unit


def test_the_bundle_brings_its_texts_and_answers(bundle: Bundle) -> None:
    texts = load_texts(bundle)
    expected = pq.read_table(bundle.path / EXPECTED)
    assert texts.sent == expected["text"].to_pylist()
    assert texts.expected == expected["predicted"].to_pylist()


def test_a_file_takes_their_place(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_text("text,predicted\n很好 😀,positive\n", encoding="utf-8")
    assert load_texts(bundle, tmp_path / "mine.csv").sent == ["很好 😀"]


def test_a_file_without_answers_gets_the_bundles(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "mine.jsonl").write_text('{"text": "an excellent box"}\n{"text": "the worst"}\n', encoding="utf-8")
    assert load_texts(bundle, tmp_path / "mine.jsonl").expected == ["positive", "negative"]


@pytest.mark.parametrize("kept", [True, False])
def test_a_bundle_without_texts_says_what_to_do(kept: bool, tmp_path: Path) -> None:
    bundle = write_tiny_bundle(tmp_path / "bundle")
    expected = bundle.path / EXPECTED
    table = pq.read_table(expected).slice(0, 0)
    expected.unlink()
    if kept:
        pq.write_table(table, expected)
    with pytest.raises(LoadTestError, match=r"carries no texts to send\. Give a file .*--texts FILE"):
        load_texts(bundle)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "words\nhello\n", "has no column 'text', only words"),
        ("a.csv", "text,predicted\n", "has no rows"),
        ("a.csv", "text,predicted\n1,x\n2,x\n", "row 1 of column 'text' is 1, not a string"),
        ("a.csv", "text,text\na,b\n", "has two columns named 'text'; rename one"),
        ("a.jsonl", "{nonsense", "can't be read"),
        ("a.parquet", "nonsense", "can't be read"),
        ("a.docx", "", "not a kind of file"),
        ("a.csv", None, "does not exist"),
    ],
)
def test_a_bad_file_is_named(bundle: Bundle, tmp_path: Path, name: str, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(LoadTestError, match=message) as raised:
        load_texts(bundle, tmp_path / name)
    assert str(tmp_path / name) in str(raised.value)


def test_a_column_with_missing_texts_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["a", None], "predicted": ["x", "x"]}), tmp_path / "a.parquet")
    with pytest.raises(LoadTestError, match="row 2 of column 'text' is None"):
        load_texts(bundle, tmp_path / "a.parquet")


@pytest.mark.parametrize("blank", ["", " \n", "\u3000"])
def test_a_blank_text_is_refused_as_its_refusal_would_be_put_down_to_the_endpoint(
    bundle: Bundle, tmp_path: Path, blank: str
) -> None:
    pq.write_table(pa.table({"text": ["a", blank, "b", ""], "predicted": ["x"] * 4}), tmp_path / "a.parquet")
    with pytest.raises(LoadTestError, match=r"a\.parquet: row 2 of column 'text' is blank"):
        load_texts(bundle, tmp_path / "a.parquet")


def test_cache_busting_texts_are_unique_and_have_the_bundles_answers(bundle: Bundle) -> None:
    load = LoadTest.model_validate({"rate": 50.0, "duration_s": 4.0, "warmup_s": 0.0, "traffic": "cache-busting"})
    texts = prepared_texts(bundle, load)
    own = load_texts(bundle)
    assert len(set(texts.sent)) == len(texts) >= 150
    assert all(text.partition(" ")[2] in own.sent for text in texts.sent)
    assert texts.expected == Predictor(bundle.path, bundle.spec, bundle.target("cpu")).predict(texts.sent).labels
    assert not set(texts.sent) & set(prepared_texts(bundle, load).sent)


def test_no_more_texts_are_prepared_than_the_recipe_says(bundle: Bundle) -> None:
    traffic = {"mix": "cache-busting", "distinct": 30}
    assert len(prepared_texts(bundle, LoadTest.model_validate({"rate": 500.0, "traffic": traffic}))) == 30


def test_another_version_brings_its_own_answers(bundle: Bundle, tmp_path: Path) -> None:
    texts = prepared_texts(bundle, LoadTest(), versions={"7": bundle})
    assert texts.expected_of(3, "7") == texts.by_version["7"][3] == texts.expected_of(3, "")
    write_texts(texts, tmp_path / "texts.parquet")
    assert load_texts(bundle, tmp_path / "texts.parquet") == texts
