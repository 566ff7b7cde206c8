"""A request's answer does not depend on what Triton handed over with it, whatever the grouping."""

import json
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.model.answering import Answering
from serving.model.incoming import Incoming
from serving.model.observation import Request
from serving.model.outputs import Answer, Decoder
from serving.model.refusals import RefusedError
from slipway.bundle import TOKENIZER, Bundle
from slipway.encoder import Windows
from slipway.errors import ServingError
from slipway.predictor import Predictor
from tests.tiny_bundle import write_tiny_bundle

pytestmark = [pytest.mark.unit]

TEXTS = st.sampled_from(
    [
        "good",
        "bad",
        "the box is good. it is",
        "好 坏 好",
        "the " * 61,
        "the " * 62,
        "bad " * 63,
        "good the " * 90,
        "👍" * 9,
    ]
)
REQUESTS = st.lists(st.tuples(st.lists(TEXTS, min_size=1, max_size=6), st.integers(1, 3)), min_size=1, max_size=12)


@pytest.fixture(scope="module")
def answering(bundle: Bundle) -> Answering:
    predictor = Predictor(bundle.path, bundle.spec, bundle.target("cpu"), windows=Windows(3, 16))
    return Answering(predictor, Decoder(bundle.spec), "window")


@pytest.fixture(scope="module")
def one_by_one(tmp_path_factory: pytest.TempPathFactory) -> Answering:
    bundle = write_tiny_bundle(tmp_path_factory.mktemp("variant") / "bundle", invariant=False)
    predictor = Predictor(bundle.path, bundle.spec, bundle.target("cpu"), windows=Windows(3, 16))
    return Answering(predictor, Decoder(bundle.spec), "window")


def incoming(requests: Sequence[tuple[list[str], int]]) -> list[Incoming]:
    return [Incoming(Request(), texts, top_k) for texts, top_k in requests]


def assert_alike(found: object, alone: object) -> None:
    assert isinstance(found, Answer)
    assert isinstance(alone, Answer)
    np.testing.assert_array_equal(found.best, alone.best)
    np.testing.assert_allclose(found.logits, alone.logits, atol=1e-5)
    np.testing.assert_allclose(found.scores, alone.scores, atol=1e-6)
    assert list(found.truncated) == list(alone.truncated)


@settings(max_examples=40, deadline=None)
@given(requests=REQUESTS)
def test_together_or_alone_the_answers_are_the_same(
    answering: Answering, requests: list[tuple[list[str], int]]
) -> None:
    pool = answering.answer(incoming(requests))
    for request, found in zip(requests, pool.results, strict=True):
        assert_alike(found, answering.answer(incoming([request])).results[0])
        assert len(found.best[0]) == request[1]


@settings(max_examples=40, deadline=None)
@given(requests=REQUESTS)
def test_padding_is_bounded_and_counted(
    answering: Answering, one_by_one: Answering, requests: list[tuple[list[str], int]]
) -> None:
    work = answering.answer(incoming(requests)).work
    assert work.padded_tokens <= 0.2 * (work.tokens + work.padded_tokens)
    alone = one_by_one.answer(incoming(requests)).work
    assert (alone.tokens, alone.padded_tokens) == (work.tokens, 0)
    assert work.runs <= alone.runs


def test_a_deadline_that_passes_while_texts_are_tokenized_costs_no_inference(answering: Answering) -> None:
    soon = Request(deadline_s=time.time() + 0.01)
    huge, waiting = Incoming(Request(), ["x" * 1_000_000]), Incoming(soon, ["good"])
    pool = answering.answer([huge, waiting])
    assert isinstance(pool.results[0], Answer)
    assert isinstance(pool.results[1], RefusedError)
    assert pool.results[1].kind == "deadline"
    assert pool.work.runs == 1


def test_a_model_whose_answers_depend_on_its_batch_runs_row_by_row(one_by_one: Answering) -> None:
    work = one_by_one.answer(incoming([(["good", "good"], 1), (["good"], 1)])).work
    assert work.runs == 3


def test_a_text_of_which_nothing_is_left_is_refused_by_its_row_and_no_neighbour_is(tmp_path: Path) -> None:
    bundle = write_tiny_bundle(tmp_path / "bundle")
    file = bundle.path / TOKENIZER
    # As a decoder's: without special tokens, and control characters are nothing to it.
    bare = json.loads(file.read_text(encoding="utf-8")) | {"post_processor": None}
    file.write_text(json.dumps(bare), encoding="utf-8")
    predictor = Predictor(bundle.path, bundle.spec, bundle.target("cpu"))
    answering = Answering(predictor, Decoder(bundle.spec), "truncate")
    pool = answering.answer(incoming([(["good"], 1), (["good", "\x01"], 1)]))
    answer, refusal = pool.results
    assert isinstance(answer, Answer)
    assert isinstance(refusal, RefusedError)
    assert refusal.kind == "bad_text"
    assert "row 1" in str(refusal)
    with pytest.raises(ServingError, match="text 1 has nothing"):
        predictor.predict(["good", "\x01"])
