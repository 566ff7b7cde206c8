"""One request before the load, so that a wrong address is one clear line and not ten thousand errors."""

import asyncio
import time

from loadtests.access import Access
from loadtests.protocols import CLIENTS, Client, RequestError
from slipway.errors import LoadTestError
from slipway.progress import say
from slipway.recipe import LoadTest

_PAUSE_S = 1.0


async def check(client: Client, protocol: str, text: str, timeout_s: float) -> None:
    """Ask once; raises `LoadTestError` that says what to do if the load would say nothing.

    A model that answers wrongly or fails on this text is for the load test to find out, not for this check.
    """
    try:
        async with asyncio.timeout(timeout_s):
            await client.ask([text])
    except TimeoutError as error:
        raise LoadTestError(
            f"The endpoint at {client.address} did not answer one {protocol} request within {timeout_s:g} s."
        ) from error
    except RequestError as error:
        if error.refused:
            raise LoadTestError(
                f"The endpoint at {client.address} does not let us in over {protocol} ({error}). "
                "Name the key or the token in loadtest.credentials."
            ) from error
        if error.unreachable and client.access.tls is not None:
            raise LoadTestError(
                f"Nothing answers {protocol} at {client.address} with TLS ({error}). Is the address right, and is "
                "loadtest.tls.ca the authority of its certificate?"
            ) from error
        if error.unreachable:
            raise LoadTestError(
                f"Nothing answers {protocol} at {client.address}. Start an endpoint with: slipway serve BUNDLE"
            ) from error
        if error.unknown_model:
            raise LoadTestError(
                f"The endpoint at {client.address} does not serve model {client.model!r} over {protocol} ({error}). "
                "Is it serving another bundle, or is it no endpoint of Slipway?"
            ) from error


def wait_for_answers(section: LoadTest, address: str, model: str, access: Access, text: str, wait_s: float) -> None:
    """Return when the endpoint at `address` (`number:port`) has answered `text` over each protocol.

    For one that is being started. Raises `LoadTestError` after `wait_s`, and at once if it doesn't let us in.
    """
    asyncio.run(_answers(section, address, model, access, text, time.monotonic() + wait_s))


async def _answers(section: LoadTest, address: str, model: str, access: Access, text: str, deadline_s: float) -> None:
    told = False
    for protocol in section.protocols:
        while (why := await _why_not(section, protocol, (address, model, access), text)) is not None:
            if time.monotonic() > deadline_s:
                raise LoadTestError(why)
            if not told:
                say(f"Waiting for {address} to answer")
                told = True
            await asyncio.sleep(_PAUSE_S)


async def _why_not(section: LoadTest, protocol: str, whom: tuple[str, str, Access], text: str) -> str | None:
    """Why there is no answer yet; None if there is one. A client of its own for each try keeps nothing of the last."""
    client = CLIENTS[protocol](*whom)
    try:
        async with asyncio.timeout(section.timeout_s):
            await client.ask([text])
    except RequestError as error:
        if error.refused:
            await check(client, protocol, text, section.timeout_s)
        return f"The endpoint at {client.address} does not answer {protocol} yet: {error}."
    except TimeoutError:
        return f"The endpoint at {client.address} did not answer one {protocol} request within {section.timeout_s:g} s."
    finally:
        await client.close()
    return None
