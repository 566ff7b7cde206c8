"""Iterables in batches: order, laziness, bounds, and where a failure is."""

import asyncio
import itertools
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving import AsyncClient, Client, RequestRefusedError
from serving.client.batching import batches, batches_async, in_order, in_order_async
from slipway.errors import ServingError
from tests.serving.client.scripted_endpoint import Refusal, ScriptedEndpoint

SIZES = st.integers(1, 7)


async def asynchronous(items: Any) -> AsyncIterator[Any]:
    for item in items:
        yield item


async def collect(items: AsyncIterator[Any], into: list[Any]) -> None:
    async for item in items:
        into.append(item)


async def collected(items: AsyncIterator[Any]) -> list[Any]:
    return [item async for item in items]


class SourceError(Exception):
    pass


def failing_after(count: int) -> Iterator[int]:
    yield from range(count)
    raise SourceError


@pytest.mark.unit
@given(st.lists(st.integers()), SIZES)
def test_batches_are_full_but_the_last_and_lose_nothing(items: list[int], size: int) -> None:
    found = list(batches(items, size))
    assert list(itertools.chain(*found)) == items
    assert all(len(batch) == size for batch in found[:-1])
    assert all(0 < len(batch) <= size for batch in found)
    assert asyncio.run(collected(batches_async(items, size))) == found
    assert asyncio.run(collected(batches_async(asynchronous(items), size))) == found


@pytest.mark.unit
@given(st.integers(0, 20), SIZES)
def test_what_a_source_gave_before_it_failed_is_in_a_batch(count: int, size: int) -> None:
    found: list[int] = []
    with pytest.raises(SourceError):
        found.extend(itertools.chain.from_iterable(batches(failing_after(count), size)))
    assert found == list(range(count))


@pytest.mark.unit
@given(st.lists(st.integers(), max_size=30), SIZES)
def test_results_come_in_order(items: list[int], in_flight: int) -> None:
    assert list(in_order(lambda item: 2 * item, items, in_flight)) == [2 * item for item in items]

    async def twice(item: int) -> int:
        # Later ones finish earlier.
        for _ in range(item % 5):
            await asyncio.sleep(0)
        return 2 * item

    found = asyncio.run(collected(in_order_async(twice, asynchronous(items), in_flight)))
    assert found == [2 * item for item in items]


@pytest.mark.unit
@given(st.integers(1, 40), st.integers(0, 40), SIZES)
def test_nothing_is_read_ahead_of_what_is_in_flight(wanted: int, more: int, in_flight: int) -> None:
    read = 0

    def source() -> Iterator[int]:
        nonlocal read
        for item in itertools.count():
            read += 1
            yield item

    results = in_order(lambda item: item, source(), in_flight)
    for given_out in range(1, wanted + 1):
        next(results)
        assert read <= given_out + in_flight - 1
    results.close()


@pytest.mark.unit
@given(st.integers(0, 20), SIZES)
def test_the_first_failure_is_raised_after_all_results_before_it(failing: int, in_flight: int) -> None:
    def checked(item: int) -> int:
        if item >= failing:
            raise ValueError(item)
        return item

    found: list[Any] = []
    with pytest.raises(ValueError, match=f"^{failing}$"):
        found.extend(in_order(checked, itertools.count(), in_flight))
    assert found == list(range(failing))

    async def checked_async(item: int) -> int:
        return checked(item)

    async def run() -> list[int]:
        found: list[Any] = []
        with pytest.raises(ValueError, match=f"^{failing}$"):
            await collect(in_order_async(checked_async, asynchronous(range(100)), in_flight), found)
        return found

    assert asyncio.run(run()) == list(range(failing))


@pytest.mark.unit
@given(st.integers(0, 20), SIZES)
def test_a_source_that_fails_is_answered_up_to_there(count: int, in_flight: int) -> None:
    found: list[Any] = []
    with pytest.raises(SourceError):
        found.extend(in_order(lambda item: item, failing_after(count), in_flight))
    assert found == list(range(count))


@pytest.mark.unit
def test_leaving_an_asynchronous_loop_cancels_what_is_in_flight() -> None:
    cancelled = 0

    async def slow(item: int) -> int:
        nonlocal cancelled
        try:
            await asyncio.sleep(3600 if item else 0)
        except asyncio.CancelledError:
            cancelled += 1
            raise
        return item

    async def run() -> None:
        results = in_order_async(slow, asynchronous(range(100)), 4)
        assert await anext(results) == 0
        await asyncio.sleep(0)
        await results.aclose()

    asyncio.run(run())
    assert cancelled == 3


@pytest.mark.integration
@pytest.mark.parametrize("in_flight", [1, 3])
def test_so_many_requests_are_in_flight_and_no_more(protocol: Any, in_flight: int) -> None:
    barrier = threading.Barrier(in_flight)

    class Meeting(ScriptedEndpoint):
        """Answers when all that may be in flight are."""

        def step(self, received: Any) -> Any:
            barrier.wait(30)
            return super().step(received)

    texts = [str(number) for number in range(10 * in_flight)]
    with Meeting(protocol) as endpoint, Client(endpoint.address, "tiny", protocol) as client:
        answers = list(client.classify_iter(texts, batch=5, in_flight=in_flight))
        assert [answer.label for answer in answers] == [text[::-1] for text in texts]
        assert len(endpoint.received) == 2 * in_flight


@pytest.mark.integration
def test_the_first_failure_says_which_texts(make_client: Any, protocol: Any) -> None:
    script = ["answer", "answer", Refusal(400, reason="row 1: blank")]
    with ScriptedEndpoint(protocol, script) as endpoint, make_client(endpoint.address, "tiny", protocol) as client:  # type: ignore[arg-type]
        found: list[Any] = []
        with pytest.raises(RequestRefusedError, match=r"^texts 20 to 29: row 1: blank") as caught:
            found.extend(client.classify_iter(map(str, itertools.count()), batch=10, in_flight=1))
        assert caught.value.offset == 20
        assert len(found) == 20


@pytest.mark.integration
def test_an_asynchronous_source_is_read_as_it_comes(protocol: Any) -> None:
    async def run() -> list[str]:
        with ScriptedEndpoint(protocol) as endpoint:
            async with AsyncClient(endpoint.address, "tiny", protocol) as client:
                texts = asynchronous(map(str, range(25)))
                return [answer.label async for answer in client.classify_iter(texts, batch=10)]

    assert asyncio.run(run()) == [str(number)[::-1] for number in range(25)]


@pytest.mark.unit
@pytest.mark.parametrize("wrong", [{"batch": 0}, {"batch": 65}, {"in_flight": 0}])
def test_sizes_that_make_no_sense_are_refused_at_once(wrong: dict[str, int]) -> None:
    with Client("127.0.0.1:1", "tiny") as client, pytest.raises(ServingError, match="is"):
        client.classify_iter([], **wrong)
