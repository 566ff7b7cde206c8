"""KServe v2 as JSON over keep-alive HTTP/1.1 with aiohttp, which is what a caller without Triton's library does.

`tritonclient.http` would add a pool of fixed size and resend on a closed connection as often as the pool is large. A
request takes an idle connection or opens a new one; there is no limit but the file descriptors. Where several are
asked for, as many pools take turns, so that no connection is busier than the others.
"""

import itertools
import json
from collections.abc import Sequence
from typing import Any

import aiohttp

from loadtests.access import Access
from loadtests.protocols.client import Answer, Client, RequestError, unknown_model, unreadable


class HttpClient(Client):
    """POST …/infer."""

    method = "infer"

    def __init__(self, address: str, model: str, access: Access | None = None, connections: int | None = None) -> None:
        super().__init__(address, model, access, connections)
        tls = self.access.tls
        self._url = f"{'https' if tls else 'http'}://{address}/v2/models/{model}/{self.method}"
        self._headers = {"Content-Type": "application/json", **self.access.headers}
        self._secured: dict[str, Any] = {"ssl": tls.context(), "server_hostname": tls.server_name} if tls else {}
        # Time limits are the caller's; a proxy named in the environment is not asked.
        self._sessions = [
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=None))
            for _ in range(self.connections or 1)
        ]
        self._next_session = itertools.cycle(self._sessions)

    def body(self, texts: Sequence[str]) -> Any:
        """The request's JSON."""
        tensor = {"name": "text", "shape": [len(texts), 1], "datatype": "BYTES", "data": list(texts)}
        return {"inputs": [tensor], "outputs": [{"name": "label"}]}

    def answer(self, content: Any, texts: int) -> Answer:
        """What the answer's JSON says; raises `ValueError`, `LookupError` or `TypeError` if it says something else."""
        output = next(output for output in content["outputs"] if output["name"] == "label")
        best = len(output["data"]) // texts
        labels = [str(label) for label in output["data"][::best]]
        if len(labels) != texts:
            raise ValueError(f"{len(labels)} labels for {texts} texts")
        return Answer(labels, str(content.get("model_version", "")))

    async def ask(self, texts: Sequence[str]) -> Answer:  # noqa: D102
        body = json.dumps(self.body(texts), ensure_ascii=False).encode()
        try:
            async with next(self._next_session).post(
                self._url, data=body, headers=self._headers, allow_redirects=False, **self._secured
            ) as response:
                received = await response.read()
        except (aiohttp.ClientError, OSError) as error:
            unreachable = isinstance(error, aiohttp.ClientConnectorError)
            raise RequestError(f"{type(error).__name__}: {error}", unreachable=unreachable) from error
        if response.status != 200:
            message = f"{response.status}: {_error_text(received)}"
            raise RequestError(
                message,
                unknown_model=unknown_model(str(response.status), message),
                refused=response.status in (401, 403),
            )
        try:
            return self.answer(json.loads(received), len(texts))
        except (ValueError, LookupError, TypeError, StopIteration, AttributeError, ZeroDivisionError) as error:
            raise unreadable(error) from error

    async def close(self) -> None:  # noqa: D102
        for session in self._sessions:
            await session.close()


def _error_text(answer: bytes) -> str:
    try:
        return str(json.loads(answer)["error"])
    except (ValueError, LookupError, TypeError):
        return answer.decode(errors="replace")
