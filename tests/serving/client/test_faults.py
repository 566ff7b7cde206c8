"""What dies under a request is covered by asking again."""

import threading
from collections.abc import Callable
from typing import Any

import pytest

from serving import Client, Retries
from tests.serving.conftest import Owner, eventually

pytestmark = [pytest.mark.integration, pytest.mark.slow]

PATIENT = Retries(attempts=60, longest_wait_s=1.0, attempt_timeout_s=5.0)


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_killed_model_processes_lose_no_answer(own: Callable[..., Owner], protocol: Any) -> None:
    owner = own()
    stubs = owner.named("triton_python_backend_stub")
    counts, labels = [0] * 4, set()
    over = threading.Event()
    failures: list[Exception] = []

    def ask(number: int) -> None:
        try:
            while not over.is_set():
                labels.update(answer.label for answer in client.classify(["good", "a good box"]))
                counts[number] += 1
        except Exception as error:
            failures.append(error)

    with Client(owner.address, "tiny", protocol, timeout_s=90, retries=PATIENT) as client:
        threads = [threading.Thread(target=ask, args=(number,)) for number in range(len(counts))]
        for thread in threads:
            thread.start()
        try:
            assert eventually(lambda: min(counts) >= 5)
            for stub in stubs:
                stub.kill()
            before = list(counts)
            assert eventually(lambda: failures or min(map(int.__sub__, counts, before)) >= 5, within=100)
        finally:
            over.set()
            for thread in threads:
                thread.join()
    assert failures == []
    assert labels == {"positive"}
