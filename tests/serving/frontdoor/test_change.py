"""What changes while Envoy runs, under load: no request is lost, and no connection closed."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.serving.conftest import eventually
from tests.serving.frontdoor.fake_triton import FakeTriton
from tests.serving.frontdoor.running_door import BODY, INFER, RunningDoor, infer_input, running

pytestmark = [pytest.mark.integration]


@contextmanager
def load(door: RunningDoor) -> Iterator[Counter[object]]:
    """Requests over both protocols, one after the other, and what became of them."""
    outcomes: Counter[object] = Counter()
    stop = threading.Event()

    def keep_asking(ask: Callable[[], object]) -> None:
        while not stop.is_set():
            try:
                outcome = ask()
            except Exception as error:
                outcome = repr(error)
            outcomes[outcome] += 1

    with door.client() as http, door.grpc() as grpc:
        asking = [
            threading.Thread(target=keep_asking, args=(lambda: http.post(INFER, json=BODY).status_code,)),
            threading.Thread(
                target=keep_asking, args=(lambda: bool(grpc.infer("tiny", [infer_input()]).get_response()),)
            ),
        ]
        for thread in asking:
            thread.start()
        try:
            yield outcomes
        finally:
            stop.set()
            for thread in asking:
                thread.join()


def is_healthy(door: RunningDoor, name: str) -> bool:
    return {f"{name}_http", f"{name}_grpc"} <= door.healthy()


def test_a_candidate_is_added_weighted_in_and_takes_over_without_a_lost_request() -> None:
    with FakeTriton("stable") as stable, FakeTriton("candidate") as candidate, running(stable.backend()) as door:
        with load(door) as outcomes:
            door.write(backends=(stable.backend(), candidate.backend(weight=0)))
            assert eventually(lambda: is_healthy(door, "candidate"))
            assert not candidate.requests
            door.write(backends=(stable.backend(weight=50), candidate.backend(weight=50)))
            assert eventually(lambda: len(candidate.requests) > 50)
            door.write(backends=(stable.backend(weight=0), candidate.backend()))
            assert eventually(lambda: stable.running == 0 and not grows(stable))
            door.write(backends=(candidate.backend(),))
            assert eventually(lambda: door.healthy() == {"candidate_http", "candidate_grpc"})
        assert set(outcomes) == {200, True}, outcomes
        assert door.client().get("/healthz").status_code == 200
        assert door.stat("http.front.downstream_cx_destroy_local") == 0


def test_a_shadow_gets_copies_that_nobody_waits_for() -> None:
    with FakeTriton("stable") as stable, FakeTriton("shadow") as shadow:
        shadowed = shadow.backend(weight=0, shadow_percent=100)
        with running(stable.backend(), shadowed) as door, door.client() as client:
            shadow.gate.clear()
            answers = [client.post(INFER, json=BODY).json() for _ in range(20)]
            assert {answer["backend"] for answer in answers} == {"stable"}
            assert eventually(lambda: len(shadow.requests) == 20)


def test_the_endpoint_is_as_healthy_as_the_backend_with_the_most_weight() -> None:
    with FakeTriton("stable") as stable, FakeTriton("candidate") as candidate:
        backends = (stable.backend(weight=90), candidate.backend(weight=10))
        with running(*backends) as door, door.client() as client:
            candidate.healthy = False
            assert eventually(lambda: not is_healthy(door, "candidate"))
            assert client.get("/healthz").status_code == 200
            stable.healthy = False
            assert eventually(lambda: client.get("/healthz").status_code == 503)
            assert client.post(INFER, json=BODY).json() == {"error": "the model is not available; try again shortly"}
            stable.healthy = True
            assert eventually(lambda: client.get("/healthz").status_code == 200)


def grows(triton: FakeTriton) -> bool:
    """Whether it is asked anything while fifty requests could have come."""
    before = len(triton.requests)
    threading.Event().wait(0.2)
    return len(triton.requests) > before
