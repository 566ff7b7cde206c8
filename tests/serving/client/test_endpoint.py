"""The client against the real endpoint: Triton behind Envoy."""

import itertools
import threading
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import serving
from serving import RequestRefusedError
from slipway.bundle import EXPECTED, Bundle
from slipway.cli import main

pytestmark = [pytest.mark.integration]


def code_of(*arguments: object) -> int:
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    return int(caught.value.code or 0)


@pytest.fixture
def client(endpoint: serving.Endpoint, make_client: Any, protocol: Any) -> Any:
    with make_client(endpoint.address, endpoint.model, protocol) as client:
        yield client


def test_answers_are_the_bundles_own_and_say_the_version(client: Any, bundle: Bundle) -> None:
    expected = pq.read_table(bundle.path / EXPECTED)
    answers = client.classify(expected["text"].to_pylist())
    assert [answer.label for answer in answers] == expected["predicted"].to_pylist()
    assert [answer.score for answer in answers] == pytest.approx(expected["score"].to_pylist(), abs=1e-5)
    assert {answer.version for answer in answers} == {"1"}


def test_a_refused_row_is_named_with_its_batch_and_request(client: Any, endpoint: serving.Endpoint) -> None:
    texts = itertools.chain(["good"] * 45, [" "], itertools.repeat("bad"))
    found: list[Any] = []
    with pytest.raises(RequestRefusedError, match=r"^texts 40 to 49: .*row 5") as caught:
        found.extend(client.classify_iter(texts, batch=10, in_flight=2))
    assert len(found) == 40
    assert caught.value.request_id


def test_another_model_is_refused(endpoint: serving.Endpoint, make_client: Any, protocol: Any) -> None:
    with make_client(endpoint.address, "other", protocol) as client, pytest.raises(RequestRefusedError):
        client.classify(["good"])


def test_texts_of_many_threads_are_not_mixed_up(endpoint: serving.Endpoint, protocol: Any) -> None:
    found: dict[str, set[str]] = {"good": set(), "bad": set(), "table": set()}
    with serving.Client(endpoint.address, endpoint.model, protocol) as client:

        def ask(text: str) -> None:
            for _ in range(20):
                found[text].update(answer.label for answer in client.classify([text] * 3))

        threads = [threading.Thread(target=ask, args=(text,)) for text in [*found] * 3]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert found == {"good": {"positive"}, "bad": {"negative"}, "table": {"neutral"}}


@pytest.mark.parametrize("through", ["endpoint", "bundle"])
def test_a_table_is_scored_from_the_command_line(
    endpoint: serving.Endpoint, bundle: Bundle, tmp_path: Path, through: str, protocol: Any
) -> None:
    expected = pq.read_table(bundle.path / EXPECTED)
    texts = [*expected["text"].to_pylist(), "good " * 1000, None]
    pq.write_table(pa.table({"review": texts, "n": range(len(texts))}), tmp_path / "in.parquet")
    address = (endpoint.address, "--model", endpoint.model, "--protocol", protocol)
    where = address if through == "endpoint" else (bundle.path,)
    out = tmp_path / "out.parquet"
    assert code_of("score", *where, tmp_path / "in.parquet", "--out", out, "--text", "review") == 0
    scored = pq.read_table(out)
    assert scored["n"].to_pylist() == list(range(len(texts)))
    assert scored["label"].to_pylist() == [*expected["predicted"].to_pylist(), "positive", None]
    assert scored["score"].to_pylist()[:-2] == pytest.approx(expected["score"].to_pylist(), abs=1e-5)
    assert scored["truncated"].to_pylist() == [*[False] * len(expected), True, None]


def test_the_scheme_of_an_address_says_the_protocol(
    endpoint: serving.Endpoint, tmp_path: Path, protocol: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = tmp_path / "in.csv"
    table.write_text("text\ngood\n")
    made: list[str] = []
    connect = serving.Client._connect

    def noting(self: serving.Client, address: str, protocol: Any, *more: Any) -> Any:
        made.append(protocol)
        return connect(self, address, protocol, *more)

    monkeypatch.setattr(serving.Client, "_connect", noting)
    other = {"grpc": "http", "http": "grpc"}[protocol]
    where = (f"{protocol}://{endpoint.address}", "--protocol", other, "--model", endpoint.model)
    assert code_of("score", *where, table, "--out", tmp_path / "out.csv") == 0
    assert made == [protocol]


def test_what_is_wrong_with_a_score_command_is_one_line(
    endpoint: serving.Endpoint, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    table, out = tmp_path / "in.csv", tmp_path / "out.csv"
    table.write_text("text\ngood\n")
    for arguments, said in (
        ((endpoint.address, table, "--out", out), "--model"),
        ((tmp_path / "nothing", table, "--out", out), "nothing"),
        ((endpoint.address, tmp_path / "no.csv", "--out", out, "--model", "tiny"), "no.csv"),
        ((endpoint.address, table, "--out", table, "--model", "tiny"), "--force"),
        ((endpoint.address, table, "--out", out, "--model", "tiny", "--text", "review"), "review"),
    ):
        assert code_of("score", *arguments) == 1
        [line] = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error: ")]
        assert said in line
        assert not out.exists()
