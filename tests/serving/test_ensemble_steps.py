"""The three steps of an ensemble, without Triton: together they answer as the bundle's predictor does."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import serving
from serving.model import decode, encoder, tokenize
from slipway.bundle import Bundle
from slipway.encoder import Windows
from slipway.predictor import Predictor
from slipway.recipe import Serve
from tests.serving.fake_triton import FakeError, FakeRequest, FakeResponse, FakeTensor, install
from tests.serving.loading import load_step, read_config
from tests.tiny_bundle import MAX_TOKENS, write_tiny_bundle

pytestmark = [pytest.mark.unit]

ALONG = ("first", "new_tokens", "truncated", "source")


class Ensemble:
    """What Triton does between the steps, for one call of each."""

    def __init__(self, models: Path) -> None:
        self.tokenize = tokenize.TritonPythonModel()
        self.encoder = encoder.TritonPythonModel()
        self.decode = decode.TritonPythonModel()
        for name in ("tokenize", "encoder", "decode"):
            load_step(getattr(self, name), models / f"tiny_{name}")
        self.inputs = [one.name for one in read_config(models / "tiny_encoder" / "config.pbtxt").input]

    def ask(self, requests: list[FakeRequest]) -> list[FakeResponse]:
        tokens = self.tokenize.execute(requests)
        going = [number for number, response in enumerate(tokens) if response.error is None]
        logits = [None] * len(requests)
        by_shape: dict[int, list[int]] = {}
        for number in going:
            by_shape.setdefault(tokens[number].columns["input_ids"].shape[1], []).append(number)
        for numbers in by_shape.values():
            batch = [FakeRequest(self._pick(tokens[number], self.inputs)) for number in numbers]
            for number, response in zip(numbers, self.encoder.execute(batch), strict=True):
                logits[number] = response.columns["logits"]
        decoded = self.decode.execute(
            [
                FakeRequest(
                    [FakeTensor("logits", logits[number]), *self._pick(tokens[number], ALONG)],
                    requests[number].outputs,
                    requests[number].params,
                )
                for number in going
            ]
        )
        answers = iter(decoded)
        return [response if response.error else next(answers) for response in tokens]

    @staticmethod
    def _pick(response: FakeResponse, names: Any) -> list[FakeTensor]:
        return [FakeTensor(name, response.columns[name]) for name in names]


@pytest.fixture(scope="module", params=["onnxruntime", "openvino"])
def engine_bundle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_tiny_bundle(tmp_path_factory.mktemp("engine") / "bundle", engine=request.param)


@pytest.fixture(scope="module")
def ensemble(engine_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Any:
    section = Serve(layout="ensemble", long_text="window", window_stride=16, max_windows=3)
    written = serving.write_repository(engine_bundle, tmp_path_factory.mktemp("ensemble") / "repository", section)
    with pytest.MonkeyPatch.context() as patch:
        install(patch)
        yield Ensemble(written.path / "models")


TEXTS = st.sampled_from(["good", "bad the", "好 坏 好", "the " * 61, "bad " * 62, "the " * 63 + "good", "bad " * 300])


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(requests=st.lists(st.lists(TEXTS, min_size=1, max_size=5), min_size=1, max_size=6))
def test_the_steps_answer_as_the_predictor_does(
    ensemble: Ensemble, engine_bundle: Bundle, requests: list[list[str]]
) -> None:
    predictor = Predictor(engine_bundle.path, engine_bundle.spec, engine_bundle.target("cpu"), windows=Windows(3, 16))
    for texts, response in zip(requests, ensemble.ask([FakeRequest.of(*texts) for texts in requests]), strict=True):
        rows = predictor.encoder.rows(texts)
        expected = predictor.predict(texts)
        found = response.columns
        assert [label.decode() for label in found["label"][:, 0]] == expected.labels
        np.testing.assert_allclose(found["logits"], expected.logits, atol=1e-5)
        np.testing.assert_allclose(found["score"][:, 0], expected.scores, atol=1e-5)
        assert found["truncated"][:, 0].tolist() == [row.truncated for row in rows]


def test_a_bad_request_fails_alone(ensemble: Ensemble) -> None:
    first, second, third = ensemble.ask([FakeRequest.of("good"), FakeRequest.of(""), FakeRequest.of("bad", top_k=2)])
    assert first.error is None
    assert second.error == FakeError("row 0: the text is empty; send at least one word", FakeError.INVALID_ARG)
    assert third.columns["label"].shape == (1, 2)


def test_a_wrong_top_k_is_refused_before_the_encoder_runs(ensemble: Ensemble) -> None:
    [response] = ensemble.tokenize.execute([FakeRequest.of("good", top_k=9)])
    assert "1 to 3" in response.error.message


def test_tokens_are_padded_to_buckets_so_that_requests_meet(ensemble: Ensemble) -> None:
    responses = ensemble.tokenize.execute([FakeRequest.of("the good bad " * n) for n in (1, 4, 7, 20)])
    widths = [response.columns["input_ids"].shape[1] for response in responses]
    assert widths == [16, 16, 32, MAX_TOKENS]


def test_more_windows_than_the_encoder_takes_are_refused(ensemble: Ensemble) -> None:
    [response] = ensemble.tokenize.execute([FakeRequest.of(*["bad " * 300] * 22)])
    assert "make 66 windows of tokens; at most 64 are run" in response.error.message


def test_a_failure_of_the_encoder_tells_no_text(ensemble: Ensemble, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_batch: Any) -> Any:
        raise RuntimeError("secret")

    monkeypatch.setattr(ensemble.encoder._session, "run", fail)
    [response] = ensemble.encoder.execute(
        [FakeRequest([FakeTensor(name, np.ones((1, 4), dtype=np.int64)) for name in ensemble.inputs])]
    )
    assert response.error.code == FakeError.INTERNAL
    assert "secret" not in response.error.message
