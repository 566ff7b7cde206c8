"""The model that runs inside Triton, without Triton."""

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import serving
from serving.model.fused import BadTextError, TritonPythonModel, decode_texts
from slipway.bundle import Bundle
from slipway.errors import ServingError
from slipway.recipe import Serve

pytestmark = [pytest.mark.unit]


def column(*values: bytes) -> np.ndarray[Any, Any]:
    return np.array([[value] for value in values], dtype=np.object_)


def test_texts_are_decoded_in_order() -> None:
    assert decode_texts(column(b"a", "好".encode())) == ["a", "好"]


@pytest.mark.parametrize(
    ("values", "why"),
    [
        (column(b"a", b"\xe5\xa5"), r"row 1: the text is not valid UTF-8 \(byte 0 is 0xe5\)"),
        (column(b"ok\xff"), r"row 0: .* \(byte 2 is 0xff\)"),
        (column(b"\xed\xa0\x80"), "row 0: the text is not valid UTF-8"),
        (column(b""), "row 0: the text is empty"),
        (column(b"a", b" \n"), "row 1: the text is blank"),
        (np.array([b"a"], dtype=np.object_), r"shape \[1\]; it must be \[rows, 1\]"),
        (np.array([[b"a", b"b"]], dtype=np.object_), r"shape \[1, 2\]"),
        (np.array([[1.0]], dtype=np.float32), "row 0: input 'text' must be of type BYTES"),
    ],
)
def test_a_row_that_is_wrong_is_named_with_the_reason(values: np.ndarray[Any, Any], why: str) -> None:
    with pytest.raises(BadTextError, match=why):
        decode_texts(values)


def test_a_reason_never_repeats_the_text() -> None:
    with pytest.raises(BadTextError) as caught:
        decode_texts(column(b"secret \xff"))
    assert "secret" not in str(caught.value)


@dataclass
class FakeTensor:
    name: str
    value: Any

    def as_numpy(self) -> Any:
        return self.value


@dataclass
class FakeRequest:
    tensor: FakeTensor
    outputs: list[str] = field(default_factory=list)

    def requested_output_names(self) -> list[str]:
        return self.outputs


@dataclass
class FakeError:
    message: str
    code: str

    INVALID_ARG = "INVALID_ARG"
    INTERNAL = "INTERNAL"


@dataclass
class FakeResponse:
    output_tensors: list[FakeTensor]
    error: FakeError | None = None


@pytest.fixture
def model(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TritonPythonModel:
    """The model as Triton would make it, with the few names of its module that it uses."""
    fake = ModuleType("triton_python_backend_utils")
    fake.__dict__.update(
        Tensor=FakeTensor,
        InferenceResponse=FakeResponse,
        TritonError=FakeError,
        get_input_tensor_by_name=lambda request, _: request.tensor,
    )
    monkeypatch.setitem(sys.modules, fake.__name__, fake)
    models = serving.write_repository(bundle, tmp_path / "repository", Serve()).path / "models"
    parameters = {"target": {"string_value": "cpu"}, "threads": {"string_value": "1"}}
    made = TritonPythonModel()
    made.initialize(
        {
            "model_repository": str(models / "tiny"),
            "model_version": "1",
            "model_config": json.dumps({"parameters": parameters}),
        }
    )
    return made


def test_only_what_was_asked_for_is_returned(model: TritonPythonModel) -> None:
    [response] = model.execute([FakeRequest(FakeTensor("text", column(b"good")), ["label", "score"])])
    assert [tensor.name for tensor in response.output_tensors] == ["label", "score"]
    assert response.output_tensors[0].value.tolist() == [[b"positive"]]
    assert response.output_tensors[1].value.shape == (1, 1)
    assert response.output_tensors[1].value.dtype == np.float32


def test_a_bad_request_fails_alone(model: TritonPythonModel) -> None:
    requests = [FakeRequest(FakeTensor("text", column(text))) for text in (b"good", b"", b"bad")]
    first, second, third = model.execute(requests)
    assert first.error is None
    assert third.error is None
    assert second.error == FakeError("row 0: the text is empty; send at least one word", FakeError.INVALID_ARG)


def test_a_failure_of_the_model_is_internal_and_tells_no_text(
    model: TritonPythonModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(texts: list[str]) -> None:
        raise RuntimeError(f"can't do {texts}")

    monkeypatch.setattr(model._predictor, "predict", fail)
    [response] = model.execute([FakeRequest(FakeTensor("text", column(b"secret")))])
    assert response.error.code == FakeError.INTERNAL
    assert "secret" not in response.error.message


def test_a_model_that_answers_otherwise_than_its_bundle_does_not_load(model: TritonPythonModel, bundle: Bundle) -> None:
    from serving.model.fused import check_answers

    wrong = [check.model_copy(update={"label": "neutral"}) for check in bundle.spec.checks]
    with pytest.raises(ServingError, match="the bundle says 'neutral'"):
        check_answers(model._predictor, bundle.spec.model_copy(update={"checks": wrong}))
