"""What an error says about whose fault it is."""

import pytest

from loadtests.protocols import GenerateClient, HttpClient, RequestError

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    "message",
    [
        "ClientConnectorError: Cannot connect to host 127.0.0.1:1 [Cannot assign requested address]",
        "UNAVAILABLE: failed to connect to all addresses; last error: socket: Too many open files",
        "OSError: [Errno 105] No buffer space available",
    ],
)
def test_a_shortage_on_this_side_is_told_from_the_endpoints_errors(message: str) -> None:
    assert RequestError(message).exhausted


@pytest.mark.parametrize("message", ["503: overloaded", "UNAVAILABLE: connection refused", "429: too many requests"])
def test_an_error_of_the_endpoint_is_no_shortage_here(message: str) -> None:
    assert not RequestError(message).exhausted


def content(data: list[str]) -> dict[str, object]:
    return {"model_version": "3", "outputs": [{"name": "score", "data": [1.0]}, {"name": "label", "data": data}]}


def test_the_first_of_several_labels_of_each_text_counts() -> None:
    answer = HttpClient.answer(None, content(["a", "b", "c", "d"]), 2)  # type: ignore[arg-type]
    assert answer.labels == ["a", "c"]
    assert answer.version == "3"


@pytest.mark.parametrize("data", [[], ["a"], ["a", "b", "c"]])
def test_an_answer_of_another_number_of_texts_is_no_answer(data: list[str]) -> None:
    with pytest.raises((ValueError, ZeroDivisionError)):
        HttpClient.answer(None, content(data), 2)  # type: ignore[arg-type]


@pytest.mark.parametrize("label", ["a", ["a", "b"]])
def test_generate_writes_one_value_bare(label: object) -> None:
    assert GenerateClient.answer(None, {"label": label, "model_version": "1"}, 1).labels == ["a"]  # type: ignore[arg-type]
