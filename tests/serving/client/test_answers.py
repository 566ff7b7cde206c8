"""What comes back, what is asked for, and what goes with a request."""

import threading
from typing import Any

import numpy as np
import pytest

from serving import Answer, Client, EndpointFailedError, RequestRefusedError, Retries
from slipway.errors import ServingError
from tests.serving.client.scripted_endpoint import OUTPUTS, VERSION, Content, Refusal, ScriptedEndpoint

pytestmark = [pytest.mark.integration]


def test_an_answer_tells_label_score_truncation_and_version(make_client: Any, protocol: Any) -> None:
    with ScriptedEndpoint(protocol) as endpoint, make_client(endpoint.address, "tiny", protocol) as client:
        assert client.classify(["abc", "很好看 " * 9]) == [
            Answer("cba", 0.5, False, VERSION),
            Answer(" 看好很" * 9, 0.5, True, VERSION),
        ]


def test_no_text_no_request(make_client: Any, protocol: Any) -> None:
    with ScriptedEndpoint(protocol) as endpoint, make_client(endpoint.address, "tiny", protocol) as client:
        assert client.classify([]) == []
        assert endpoint.received == []


def test_truncated_is_asked_of_a_model_that_has_it(make_client: Any, protocol: Any) -> None:
    old = {"label": [-1, 1], "score": [-1, 1], "logits": [-1, 3]}
    for outputs, asked in ((OUTPUTS, ["label", "score", "truncated"]), (old, ["label", "score"])):
        with (
            ScriptedEndpoint(protocol, outputs=outputs) as endpoint,
            make_client(endpoint.address, "tiny", protocol) as client,
        ):
            [answer] = client.classify(["abc"])
            assert endpoint.received[0].outputs == asked
            assert answer.truncated is (False if outputs is OUTPUTS else None)


def test_top_k_gives_so_many_labels(make_client: Any, protocol: Any) -> None:
    with ScriptedEndpoint(protocol) as endpoint, make_client(endpoint.address, "tiny", protocol) as client:
        [answer] = client.classify(["abc"], top_k=2)
        assert answer == Answer("cba", 0.5, False, VERSION, {"cba": 0.5, "cba'": 0.25})
        assert endpoint.received[0].top_k == 2


@pytest.mark.parametrize("top_k", ["3", 2**70, True, 2.0, 0, -1, [2]], ids=repr)
def test_a_top_k_that_is_no_number_of_labels_is_refused_before_it_is_sent(
    make_client: Any, protocol: Any, top_k: Any
) -> None:
    with ScriptedEndpoint(protocol) as endpoint, make_client(endpoint.address, "tiny", protocol) as client:
        with pytest.raises(RequestRefusedError, match=r"top_k is .*; it must be a whole number from 1"):
            client.classify(["abc"], top_k=top_k)
        assert endpoint.received == []


def test_a_top_k_of_numpys_is_a_number_like_any_other(make_client: Any, protocol: Any) -> None:
    with ScriptedEndpoint(protocol) as endpoint, make_client(endpoint.address, "tiny", protocol) as client:
        [answer] = client.classify(["abc"], top_k=np.int64(2))
        assert len(answer.scores) == 2


def test_scores_gives_every_label(make_client: Any, protocol: Any) -> None:
    with ScriptedEndpoint(protocol) as endpoint, make_client(endpoint.address, "tiny", protocol) as client:
        [answer] = client.classify(["abc"], scores=True)
        assert len(answer.scores) == 3
        assert list(answer.scores) == sorted(answer.scores, key=lambda label: -answer.scores[label])


@pytest.mark.parametrize("wish", [{"top_k": 2}, {"scores": True}])
def test_a_model_without_top_k_is_not_made_to_guess(make_client: Any, protocol: Any, wish: dict[str, Any]) -> None:
    outputs = {"label": [-1, 1], "score": [-1, 1]}
    with (
        ScriptedEndpoint(protocol, outputs=outputs) as endpoint,
        make_client(endpoint.address, "tiny", protocol) as client,
        pytest.raises(RequestRefusedError, match="endpoint"),
    ):
        client.classify(["abc"], **wish)


def test_a_long_list_is_several_requests_and_one_answer(make_client: Any, protocol: Any) -> None:
    texts = [f"text {number}" for number in range(150)]
    with ScriptedEndpoint(protocol) as endpoint, make_client(endpoint.address, "tiny", protocol) as client:
        assert [answer.label for answer in client.classify(texts)] == [text[::-1] for text in texts]
        assert [len(received.texts) for received in endpoint.received] == [64, 64, 22]


def test_a_failure_in_a_long_list_says_where(make_client: Any, protocol: Any) -> None:
    with (
        ScriptedEndpoint(protocol, ["answer", Refusal(400, reason="row 3: blank")]) as endpoint,
        make_client(endpoint.address, "tiny", protocol) as client,
        pytest.raises(RequestRefusedError, match=r"^texts 64 to 127: row 3: blank") as caught,
    ):
        client.classify(["abc"] * 150)
    assert caught.value.offset == 64


def test_an_answer_that_makes_no_sense_is_the_endpoints_failure(make_client: Any, protocol: Any) -> None:
    with (
        ScriptedEndpoint(protocol, ["nonsense"]) as endpoint,
        make_client(endpoint.address, "tiny", protocol, retries=Retries(attempts=1)) as client,
        pytest.raises(EndpointFailedError, match="can't be read"),
    ):
        client.classify(["abc"])


@pytest.mark.parametrize(
    "body",
    [
        b"<html>Welcome</html>",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"outputs": [1]}',
        b'{"outputs": [{"shape": [1, 1]}]}',
        b'{"outputs": [{"name": "label", "shape": [1, 1], "data": ["a"]}]}',
        b'{"outputs": [{"name": "label", "datatype": "BYTES", "shape": [1, 1]}]}',
        b'{"outputs": [{"name": "label", "datatype": "BYTES", "shape": [2, 1], "data": ["a"]}]}',
        b'{"outputs": [{"name": "label", "datatype": "BYTES", "shape": [1, 1],'
        b' "parameters": {"binary_data_size": 9}}]}',
        b'{"outputs": [{"name": "score", "datatype": "FP32", "shape": [1, 1], "data": ["high"]},'
        b' {"name": "label", "datatype": "BYTES", "shape": [1, 1], "data": ["a"]}]}',
    ],
)
def test_whatever_comes_instead_of_an_answer_is_the_endpoints_failure(make_client: Any, body: bytes) -> None:
    with (
        ScriptedEndpoint("http", [Content(body)]) as endpoint,
        make_client(endpoint.address, "tiny", "http", retries=Retries(attempts=1)) as client,
        pytest.raises(EndpointFailedError, match="can't be read"),
    ):
        client.classify(["abc"])


@pytest.mark.parametrize("text", ["secret \ud83d", 7, None], ids=["half a character", "a number", "nothing"])
def test_what_is_no_text_is_refused_before_it_is_sent(make_client: Any, protocol: Any, text: Any) -> None:
    with ScriptedEndpoint(protocol) as endpoint, make_client(endpoint.address, "tiny", protocol) as client:
        with pytest.raises(RequestRefusedError, match="row 1: ") as caught:
            client.classify(["fine", text])
        assert endpoint.received == []
        assert "secret" not in str(caught.value)
        assert caught.value.__cause__ is None


@pytest.mark.parametrize("text", ["abc", b"abc", ""])
@pytest.mark.parametrize("method", ["classify", "classify_iter"])
def test_a_single_text_is_not_taken_for_a_list_of_letters(
    make_client: Any, protocol: Any, method: str, text: Any
) -> None:
    with ScriptedEndpoint(protocol) as endpoint, make_client(endpoint.address, "tiny", protocol) as client:
        with pytest.raises(RequestRefusedError, match="single text"):
            list(getattr(client, method)(text))
        assert endpoint.received == []


def test_credentials_go_with_each_attempt(make_client: Any, protocol: Any) -> None:
    tokens = iter(["old", "older", "new", "newest"])
    with (
        ScriptedEndpoint(protocol, [Refusal(503)]) as endpoint,
        make_client(endpoint.address, "tiny", protocol, api_key="key", token=lambda: next(tokens)) as client,
    ):
        client.classify(["abc"])
        shown = [received.headers["authorization"] for received in endpoint.received]
        assert shown == ["Bearer older", "Bearer new"]
        assert {received.headers["x-api-key"] for received in endpoint.received} == {"key"}


def test_secrets_are_not_in_a_clients_representation() -> None:
    from serving.client.connecting import Credentials

    assert "hidden" not in repr(Credentials("hidden", "hidden"))


@pytest.mark.parametrize("secret", ["hidden\n", "hidd\u00e9n", " hidden", "hid\0den", "hidden\r\nx: y", ""])
@pytest.mark.parametrize("kind", ["api_key", "token", "token of a function"])
def test_a_secret_that_no_header_can_hold_is_refused_unsent_and_unshown(
    make_client: Any, protocol: Any, kind: str, secret: str
) -> None:
    credentials: dict[str, Any] = {"token": lambda: secret} if kind.endswith("function") else {kind: secret}
    with (
        ScriptedEndpoint(protocol) as endpoint,
        pytest.raises(ServingError, match=r"printable ASCII.*strip it") as caught,
        make_client(endpoint.address, "tiny", protocol, **credentials) as client,
    ):
        client.classify(["abc"])
    assert endpoint.received == []
    assert "hid" not in str(caught.value)


@pytest.mark.parametrize(
    "address", ["http://127.0.0.1:80", "127.0.0.1", "127.0.0.1:80/v2", "", "a b:80", "::1:80", "a:65616", "a:0"]
)
def test_an_address_is_a_host_and_a_port(address: str) -> None:
    with pytest.raises(ServingError, match="host:port"):
        Client(address, "tiny")


@pytest.mark.parametrize("texts", [iter(["abc"]), {"abc"}, {"abc": 1}], ids=lambda texts: type(texts).__name__)
def test_what_can_not_be_cut_into_requests_is_sent_to_the_method_for_it(
    make_client: Any, protocol: Any, texts: Any
) -> None:
    with (
        ScriptedEndpoint(protocol) as endpoint,
        make_client(endpoint.address, "tiny", protocol) as client,
        pytest.raises(RequestRefusedError, match="classify_iter"),
    ):
        client.classify(texts)
    assert endpoint.received == []


def test_a_closed_client_says_so(make_client: Any, protocol: Any) -> None:
    with ScriptedEndpoint(protocol) as endpoint, make_client(endpoint.address, "tiny", protocol) as client:
        client.classify(["abc"])
        client.close()
        with pytest.raises(RuntimeError, match="closed"):
            client.classify(["abc"])


def test_one_client_serves_many_threads(protocol: Any) -> None:
    found: dict[int, list[str]] = {}
    with ScriptedEndpoint(protocol) as endpoint, Client(endpoint.address, "tiny", protocol) as client:

        def ask(number: int) -> None:
            found[number] = [client.classify([f"{number} {turn}"])[0].label for turn in range(10)]

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert found == {number: [f"{number} {turn}"[::-1] for turn in range(10)] for number in range(8)}
