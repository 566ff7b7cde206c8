"""Data frames and Arrow tables: the same type comes back, wider by four columns."""

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest

from serving import Client
from slipway.errors import DataError
from tests.serving.client.scripted_endpoint import VERSION, ScriptedEndpoint

pytestmark = [pytest.mark.integration]

pd = pytest.importorskip("pandas")

TEXTS = ["abc", None, "a text of more than twenty", " ", "", "好"]
LABELS = ["cba", None, "ytnewt naht erom fo txet a", None, None, "好"]
TRUNCATED = [False, None, True, None, None, False]


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with ScriptedEndpoint("grpc") as endpoint:
        yield endpoint.address


@pytest.fixture
def client(address: str, make_client: Any) -> Iterator[Any]:
    with make_client(address, "tiny") as client:
        yield client


def assert_scored(columns: dict[str, list[Any]], prefix: str = "") -> None:
    assert columns[prefix + "label"] == LABELS
    assert columns[prefix + "score"] == [None if label is None else 0.5 for label in LABELS]
    assert columns[prefix + "truncated"] == TRUNCATED
    assert columns[prefix + "version"] == [None if label is None else VERSION for label in LABELS]


def test_a_data_frame_keeps_its_index_and_columns(client: Any) -> None:
    frame = pd.DataFrame({"n": range(6), "text": TEXTS}, index=list("uvwxyz"))
    scored = client.score(frame)
    assert list(scored.columns) == ["n", "text", "label", "score", "truncated", "version"]
    assert list(scored.index) == list("uvwxyz")
    assert_scored(scored.astype(object).where(scored.notna(), None).to_dict("list"))
    assert list(frame.columns) == ["n", "text"]


@pytest.mark.parametrize("kind", ["object", "string", "category", "str"])
def test_a_frames_texts_may_be_of_any_string_type(client: Any, kind: str) -> None:
    texts = [float("nan") if text is None and kind == "object" else text for text in TEXTS]
    scored = client.score(pd.DataFrame({"text": pd.Series(texts).astype(kind)}))
    assert scored["label"].isna().tolist() == [label is None for label in LABELS]


def test_a_repeated_index_is_no_trouble(client: Any) -> None:
    scored = client.score(pd.DataFrame({"text": TEXTS}, index=[0] * 6))
    assert scored["label"].astype(object).where(scored["label"].notna(), None).tolist() == LABELS


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())], ids=str)
def test_an_arrow_table_comes_back_as_one(client: Any, kind: Any) -> None:
    table = pa.table({"n": range(6), "review": pa.array(TEXTS).cast(kind)})
    scored = client.score(table, "review", prefix="predicted_")
    assert isinstance(scored, pa.Table)
    assert scored.schema.field("review").type == kind
    assert_scored(scored.to_pydict(), "predicted_")
    batch = client.score(table.to_batches()[0], "review", prefix="predicted_")
    assert isinstance(batch, pa.RecordBatch)
    assert_scored(batch.to_pydict(), "predicted_")


def test_a_table_without_rows_gets_the_columns(client: Any) -> None:
    table = pa.table({"text": pa.array([], pa.string())})
    assert client.score(table).schema.names == ["text", "label", "score", "truncated", "version"]
    assert client.score(table.to_pandas()).shape == (0, 5)


@pytest.mark.parametrize("make", [pa.table, pd.DataFrame])
def test_what_is_there_is_not_overwritten(client: Any, make: Any) -> None:
    with pytest.raises(DataError, match=r"'label'.*prefix"):
        client.score(make({"text": ["abc"], "label": ["truth"]}))


@pytest.mark.parametrize("make", [pa.table, pd.DataFrame])
def test_a_column_that_is_not_there_is_named_with_those_that_are(client: Any, make: Any) -> None:
    with pytest.raises(DataError, match=r"'text'.*'review'"):
        client.score(make({"review": ["abc"]}))


@pytest.mark.parametrize("make", [pa.table, pd.DataFrame])
def test_a_column_of_numbers_is_no_text(client: Any, make: Any) -> None:
    with pytest.raises(DataError, match=r"row 0.*int"):
        client.score(make({"text": [1, 2]}))


class Indexed(pd.DataFrame):
    @property
    def _constructor(self) -> type["Indexed"]:
        return Indexed


def test_a_library_that_builds_on_pandas_gets_its_own_kind_back(client: Any) -> None:
    scored = client.score(Indexed({"text": ["abc"]}))
    assert type(scored) is Indexed
    assert scored["label"].tolist() == ["cba"]


@pytest.mark.parametrize(
    "table", [[{"text": "abc"}], pd.Series(["abc"]), pa.array(["abc"])], ids=lambda table: type(table).__name__
)
def test_other_tables_are_refused(client: Any, table: Any) -> None:
    with pytest.raises(DataError, match=f"{type(table).__name__} is not a table"):
        client.score(table)


def test_who_has_no_pandas_needs_none(address: str) -> None:
    code = f"""
import sys
class NoPandas:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "pandas":
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, NoPandas())
import pyarrow as pa
from serving import Client
with Client("{address}", "tiny") as client:
    assert client.score(pa.table({{"text": ["abc"]}}))["label"].to_pylist() == ["cba"]
assert not {{"torch", "transformers", "gevent"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_table_is_sent_in_batches(address: str) -> None:
    table = pa.table({"text": [str(number) for number in range(200)]})
    with Client(address, "tiny") as client:
        scored = client.score(table, batch=7, in_flight=3)
    assert scored["label"].to_pylist() == [str(number)[::-1] for number in range(200)]
