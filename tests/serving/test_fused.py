"""The model that runs inside Triton, without Triton."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import serving
from serving.model.fused import TritonPythonModel, check_answers
from serving.model.observation import Executed
from serving.model.observers import Guarded
from serving.model.settings import Loaded
from serving.observability.metrics import Registry
from slipway.bundle import Bundle
from slipway.errors import ServingError
from slipway.recipe import Serve
from tests.serving.fake_triton import FakeError, FakeRequest, install
from tests.serving.loading import load_step

pytestmark = [pytest.mark.unit]

LONG = "the " * 100


class Recorder:
    def __init__(self) -> None:
        self.calls: list[Executed] = []

    def executed(self, batch: Executed) -> None:
        self.calls.append(batch)

    def close(self) -> None:
        pass


@pytest.fixture
def observed(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    recorder = Recorder()

    def make(triton: Any, _loaded: Loaded) -> Guarded:
        return Guarded([recorder], triton.Logger, Registry(triton, {}))

    monkeypatch.setattr("serving.model.reporting.make_observer", make)
    return recorder


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    return install(monkeypatch)


@pytest.fixture
def make(bundle: Bundle, tmp_path: Path, logged: list[str]) -> Any:
    def load(**settings: Any) -> TritonPythonModel:
        written = serving.write_repository(bundle, tmp_path / "repository", Serve(**settings))
        model = TritonPythonModel()
        load_step(model, written.path / "models" / "tiny")
        return model

    return load


@pytest.fixture
def model(make: Any, observed: Recorder) -> TritonPythonModel:
    made: TritonPythonModel = make()
    return made


def test_only_what_was_asked_for_is_returned(model: TritonPythonModel) -> None:
    [response] = model.execute([FakeRequest.of("good", outputs=["label", "score"])])
    assert list(response.columns) == ["label", "score"]
    assert response.columns["label"].tolist() == [[b"positive"]]
    assert response.columns["score"].shape == (1, 1)
    assert response.columns["score"].dtype == np.float32


def test_who_names_no_outputs_gets_all(model: TritonPythonModel, bundle: Bundle) -> None:
    [response] = model.execute([FakeRequest.of("good", "bad")])
    shapes = {name: value.shape for name, value in response.columns.items()}
    labels = len(bundle.spec.labels)
    assert shapes == {
        "label": (2, 1), "score": (2, 1), "scores": (2, labels), "logits": (2, labels), "truncated": (2, 1),
    }  # fmt: skip
    np.testing.assert_allclose(response.columns["scores"].sum(axis=1), 1, rtol=1e-6)


def test_top_k_gives_the_best_labels_in_order(model: TritonPythonModel) -> None:
    [response] = model.execute([FakeRequest.of("good", top_k=3)])
    assert response.columns["label"].tolist() == [[b"positive", b"neutral", b"negative"]]
    [scores] = response.columns["score"].tolist()
    assert scores == sorted(scores, reverse=True)


@pytest.mark.parametrize("wanted", [0, 4, -1, "2", True, 1.0, None, "x" * 1000])
def test_a_top_k_that_is_no_number_of_labels_is_refused(model: TritonPythonModel, wanted: Any) -> None:
    [response] = model.execute([FakeRequest.of("good", top_k=wanted)])
    assert response.error.code == FakeError.INVALID_ARG
    assert "must be a whole number from 1 to 3" in response.error.message
    assert len(response.error.message) < 200


def test_a_bad_request_fails_alone(model: TritonPythonModel) -> None:
    first, second, third = model.execute([FakeRequest.of(text) for text in ("good", "", "bad")])
    assert first.error is None
    assert third.columns["label"].tolist() == [[b"negative"]]
    assert second.error == FakeError("row 0: the text is empty; send at least one word", FakeError.INVALID_ARG)


def test_a_failure_of_the_model_is_internal_tells_no_text_and_hits_no_neighbour(
    model: TritonPythonModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = model._predictor.run

    def fail(rows: Any) -> Any:
        if any(row.tokens == 4 for row in rows):
            raise RuntimeError("can't do secret")
        return run(rows)

    monkeypatch.setattr(model._predictor, "run", fail)
    first, second = model.execute([FakeRequest.of("good"), FakeRequest.of("good bad")])
    assert first.columns["label"].tolist() == [[b"positive"]]
    assert second.error.code == FakeError.INTERNAL
    assert "secret" not in second.error.message


def test_a_request_whose_deadline_has_passed_costs_no_inference(model: TritonPythonModel, observed: Recorder) -> None:
    late = {"X-Slipway-Deadline": str(time.time() - 1)}
    in_time = {"x-slipway-deadline": str(time.time() + 60)}
    first, second = model.execute([FakeRequest.of("good", **late), FakeRequest.of("good", **in_time)])
    assert first.error.code == FakeError.UNAVAILABLE
    assert second.error is None
    [call] = observed.calls
    assert [kind for _, kind in call.refused] == ["deadline"]
    assert call.tokens == 3


def test_the_earlier_deadline_counts(model: TritonPythonModel, observed: Recorder) -> None:
    now = time.time()
    asked = {"x-slipway-arrived": str(now - 1), "x-slipway-deadline": str(now + 60)}
    short, long = FakeRequest.of("good", **asked), FakeRequest.of("good", **asked)
    short.timeout_us, long.timeout_us = 500_000, 500_000_000
    first, second = model.execute([short, long])
    assert first.error.code == FakeError.UNAVAILABLE
    assert second.error is None
    [call] = observed.calls
    assert [kind for _, kind in call.refused] == ["deadline"]
    assert call.answered[0].request.deadline_s == pytest.approx(now + 60)


def test_a_call_that_was_cancelled_while_it_waited_costs_no_inference(
    model: TritonPythonModel, observed: Recorder
) -> None:
    waited = FakeRequest.of("good", **{"x-slipway-arrived": str(time.time() - 1)})
    unknown = FakeRequest.of("good")
    waited.cancelled = unknown.cancelled = True
    first, second, third = model.execute([waited, unknown, FakeRequest.of("good")])
    assert first.error.code == second.error.code == FakeError.CANCELLED
    assert third.error is None
    assert [kind for _, kind in observed.calls[0].refused] == ["cancelled", "cancelled"]
    assert observed.calls[0].tokens == 3


@pytest.mark.parametrize("value", ["", "soon", "nan", "-1", "inf", None])
def test_a_header_that_is_no_moment_is_unknown(model: TritonPythonModel, observed: Recorder, value: Any) -> None:
    [response] = model.execute([FakeRequest.of("good", **{"x-slipway-deadline": value, "x-slipway-arrived": value})])
    assert response.error is None
    about = observed.calls[0].answered[0].request
    assert (about.deadline_s, about.arrived_s) == (0.0, 0.0)


def test_the_observer_is_told_who_asked_and_what_it_took(model: TritonPythonModel, observed: Recorder) -> None:
    headers = {"x-request-id": "r-1", "traceparent": "00-ab-cd-01", "x-slipway-arrived": "1.5"}
    model.execute([FakeRequest.of("good", LONG, **headers), FakeRequest.of(b"\xff")])
    [call] = observed.calls
    [answered] = call.answered
    assert (answered.request.id, answered.request.traceparent) == ("r-1", "00-ab-cd-01")
    assert list(answered.texts) == ["good", LONG]
    assert list(answered.labels) == ["positive", "neutral"]
    assert list(answered.truncated) == [False, True]
    assert list(answered.windows) == [1, 1]
    assert (call.tokens, call.padded_tokens, call.runs) == (3 + 64, 0, 2)
    assert [kind for _, kind in call.refused] == ["bad_text"]
    assert call.started_s <= call.tokenized_s <= call.computed_s <= call.ended_s


def test_an_observer_that_fails_fails_no_answer(
    model: TritonPythonModel, observed: Recorder, logged: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_batch: Executed) -> None:
        raise OSError("disk full of secrets")

    monkeypatch.setattr(observed, "executed", fail)
    for _ in range(3):
        [response] = model.execute([FakeRequest.of("good")])
        assert response.error is None
    [warning] = logged
    assert warning.startswith("Recorder failed with OSError")
    assert "secrets" not in warning


def test_a_model_that_can_not_be_observed_answers(
    make: Any, logged: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_triton: Any, _loaded: Loaded) -> Any:
        raise ServingError("no such extra")

    monkeypatch.setattr("serving.model.reporting.make_observer", fail)
    model = make()
    [response] = model.execute([FakeRequest.of("good")])
    model.finalize()
    assert response.columns["label"].tolist() == [[b"positive"]]
    assert logged == ["the model is not observed (ServingError); answers are not affected"]


def test_a_long_text_is_refused_where_the_recipe_rejects(make: Any, observed: Recorder) -> None:
    model = make(long_text="reject")
    [response] = model.execute([FakeRequest.of("good", LONG)])
    assert response.error.code == FakeError.INVALID_ARG
    assert "row 1: the text has at least 102 tokens; the model takes 64" in response.error.message
    assert observed.calls[0].refused[0][1] == "too_long"
    assert observed.calls[0].runs == 0


def test_a_long_text_is_read_to_its_end_in_windows(make: Any, observed: Recorder) -> None:
    text = "the " * 70 + "bad " * 40
    [cut] = make(long_text="truncate").execute([FakeRequest.of(text)])
    assert cut.columns["label"].tolist() == [[b"neutral"]]
    assert cut.columns["truncated"].tolist() == [[True]]
    model = make(long_text="window", window_stride=16)
    [whole] = model.execute([FakeRequest.of(text)])
    assert whole.columns["truncated"].tolist() == [[False]]
    assert whole.columns["scores"][0, 0] > 0.2
    assert observed.calls[-1].answered[0].windows == [3]


def test_a_text_beyond_the_most_windows_says_that_it_was_cut(make: Any, observed: Recorder) -> None:
    model = make(long_text="window", window_stride=16, max_windows=2)
    [response] = model.execute([FakeRequest.of(LONG * 3, LONG)])
    assert response.columns["truncated"].tolist() == [[True], [False]]
    assert observed.calls[0].answered[0].windows == [2, 2]


def test_windows_that_do_not_move_on_are_refused_when_the_repository_is_written(bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(ServingError, match="window_stride is 62, but a window has room for 62 tokens"):
        serving.write_repository(bundle, tmp_path / "out", Serve(long_text="window", window_stride=62))


def test_a_model_that_answers_otherwise_than_its_bundle_does_not_load(model: TritonPythonModel, bundle: Bundle) -> None:
    wrong = [check.model_copy(update={"label": "neutral"}) for check in bundle.spec.checks]
    with pytest.raises(ServingError, match="the bundle says 'neutral'"):
        check_answers(model._predictor, bundle.spec.model_copy(update={"checks": wrong}))


def test_a_gpus_model_does_not_run_on_a_cpu_unnoticed(bundle: Bundle, tmp_path: Path, logged: list[str]) -> None:
    from tests.tiny_bundle import write_tiny_bundle

    both = write_tiny_bundle(tmp_path / "bundle", gpu=True)
    models = serving.write_repository(both, tmp_path / "repository", Serve()).path / "models"
    with pytest.raises(Exception, match="has no CUDAExecutionProvider, TensorrtExecutionProvider"):
        load_step(TritonPythonModel(), models / "tiny", config="gpu")
