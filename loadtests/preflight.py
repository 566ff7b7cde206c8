"""One request before the load, so that a wrong address is one clear line and not ten thousand errors."""

import asyncio

from loadtests.protocols import Client, RequestError
from slipway.errors import LoadTestError


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
