"""`AsyncClient` and the event loop that it belongs to."""

import asyncio
from typing import Any

import pytest

from serving import AsyncClient
from tests.serving.client.scripted_endpoint import ScriptedEndpoint, Stall

pytestmark = [pytest.mark.unit]


def test_a_client_may_be_made_before_its_loop_runs(protocol: Any) -> None:
    with ScriptedEndpoint(protocol) as endpoint:
        client = AsyncClient(endpoint.address, "m", protocol)

        async def ask() -> str:
            async with client:
                return (await client.classify(["abc"]))[0].label

        assert asyncio.run(ask()) == "cba"


def test_another_loop_is_told_that_it_needs_a_client_of_its_own(protocol: Any) -> None:
    with ScriptedEndpoint(protocol) as endpoint:
        client = AsyncClient(endpoint.address, "m", protocol)

        async def ask_and_close() -> None:
            with pytest.raises(RuntimeError, match="another event loop"):
                await client.classify(["abc"])
            await client.close()

        async def ask() -> None:
            await client.classify(["abc"])
            await asyncio.to_thread(asyncio.run, ask_and_close())

        asyncio.run(ask())


def test_calls_under_way_fail_when_the_client_is_closed(protocol: Any) -> None:
    with ScriptedEndpoint(protocol, [Stall(60)]) as endpoint:

        async def close_under_way() -> BaseException | list[Any]:
            client = AsyncClient(endpoint.address, "m", protocol)
            call = asyncio.create_task(client.classify(["abc"]))
            while not endpoint.received:
                await asyncio.sleep(0)
            await client.close()
            return (await asyncio.gather(call, return_exceptions=True))[0]

        failure = asyncio.run(close_under_way())
    assert isinstance(failure, RuntimeError)
    assert "closed" in str(failure)


def test_a_call_that_is_cancelled_while_the_client_closes_is_cancelled(protocol: Any) -> None:
    with ScriptedEndpoint(protocol, [Stall(60)]) as endpoint:

        async def cancel_and_close() -> bool:
            client = AsyncClient(endpoint.address, "m", protocol)
            call = asyncio.create_task(client.classify(["abc"]))
            while not endpoint.received:
                await asyncio.sleep(0)
            call.cancel()
            await client.close()
            await asyncio.wait([call])
            return call.cancelled()

        assert asyncio.run(cancel_and_close())
