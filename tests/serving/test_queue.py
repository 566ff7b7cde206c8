"""Triton's queue in front of the model: what nobody waits for any more is dropped from it."""

import time
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
from tritonclient.utils import InferenceServerException

import serving
from slipway.recipe import Serve
from tests.serving.bare_triton import BareTriton, bare_triton
from tests.serving.conftest import eventually
from tests.tiny_bundle import write_tiny_bundle

pytestmark = [pytest.mark.integration]

SLOW = ["x" * 50_000] * 33
"""A request that takes the model half a second: words without an end have to be read whole. Two are no batch of 64."""


@pytest.fixture(scope="module", params=[True, False], ids=["invariant", "row by row"])
def triton(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BareTriton]:
    """One instance."""
    folder = tmp_path_factory.mktemp("queue")
    bundle = write_tiny_bundle(folder / "bundle", invariant=request.param)
    section = Serve.model_validate({"instances": 1})
    with bare_triton(serving.write_repository(bundle, folder / "repository", section).path) as running:
        yield running


class Caller:
    """Asks over gRPC, in the background if need be."""

    def __init__(self, triton: BareTriton) -> None:
        self.triton = triton
        self.client = triton_grpc.InferenceServerClient(triton.grpc_address)

    def ask(self, *texts: str, **arguments: Any) -> Any:
        return self.client.infer("tiny", [self._tensor(texts)], **arguments)

    def begin(self, *texts: str) -> list[Any]:
        """Start a request; the list gets what comes of it."""
        came: list[Any] = []
        self.client.async_infer(
            "tiny", [self._tensor(texts)], callback=lambda result, error: came.append(error or result)
        )
        return came

    def occupy(self) -> tuple[list[Any], list[Any]]:
        """Keep the only instance busy for a while: two requests, of which one waits for the other."""
        came = self.begin(*SLOW), self.begin(*SLOW)
        assert eventually(lambda: self._waiting() == 1)
        return came

    def give_up_next_in_line(self) -> list[Any]:
        """Cancel a request when it is the next one; what came of the one that keeps the instance busy meanwhile.

        Of two that are sent at once either may arrive first. So this one is sent when one of two others is being
        worked on and the other waits: it is the last, and the next as soon as one of them has its answer.
        """
        slow, slower = self.occupy()
        waiting = self.client.async_infer("tiny", [self._tensor(SLOW)], callback=lambda **_: None)
        assert eventually(lambda: self._waiting() == 2)
        assert eventually(lambda: (slow or slower) and self._waiting() == 1)
        waiting.cancel()
        return slower if slow else slow

    def answered_rows(self) -> int:
        """Texts that the model has run; Triton's own count includes those that it was handed and refused."""
        return self._metric("slipway_rows_total")

    def _waiting(self) -> int:
        return self._metric("nv_inference_pending_request_count")

    def _metric(self, name: str) -> int:
        page = httpx.get(f"http://127.0.0.1:{self.triton.server.metrics_port}/metrics").text
        [line] = [line for line in page.splitlines() if line.startswith(name + "{")]
        return int(float(line.split()[-1]))

    @staticmethod
    def _tensor(texts: Any) -> Any:
        tensor = triton_grpc.InferInput("text", [len(texts), 1], "BYTES")
        tensor.set_data_from_numpy(np.array([[text.encode()] for text in texts], dtype=np.object_))
        return tensor


@pytest.fixture
def caller(triton: BareTriton) -> Caller:
    return Caller(triton)


def test_a_call_that_ran_out_of_time_in_the_queue_costs_no_inference(caller: Caller) -> None:
    answered = caller.answered_rows()
    slow, slower = caller.occupy()
    with pytest.raises(InferenceServerException, match="Deadline Exceeded"):
        caller.ask("good", client_timeout=0.02)
    assert slower == [], "the instance was not busy for long enough"
    assert eventually(lambda: slow and slower)
    caller.ask("good")
    assert eventually(lambda: caller.answered_rows() >= answered + 2 * len(SLOW) + 1)
    assert caller.answered_rows() == answered + 2 * len(SLOW) + 1


def test_a_call_that_was_cancelled_costs_no_inference_even_next_in_line(caller: Caller) -> None:
    answered = caller.answered_rows()
    came = caller.give_up_next_in_line()
    assert came == [], "the instance was not busy for long enough"
    assert eventually(lambda: came)
    caller.ask("good")
    assert eventually(lambda: caller.answered_rows() >= answered + 2 * len(SLOW) + 1)
    assert caller.answered_rows() == answered + 2 * len(SLOW) + 1


def test_a_request_may_say_how_long_it_will_wait_in_the_queue(caller: Caller) -> None:
    slow, slower = caller.occupy()
    with pytest.raises(InferenceServerException, match="deadline passed") as caught:
        caller.ask("good", timeout=1000, headers={"x-slipway-arrived": f"{time.time():.3f}"})
    assert caught.value.status() == "StatusCode.UNAVAILABLE"
    assert eventually(lambda: slow and slower)
