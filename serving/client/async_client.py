"""`AsyncClient`: calls from an event loop."""

import asyncio
import contextlib
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Sequence
from typing import TYPE_CHECKING, Self, TypeVar, cast

from serving.client.answers import Answer
from serving.client.batching import batches_async, in_order_async
from serving.client.calls import Caller, new_request_id, require_batch, require_list, require_texts
from serving.client.connecting import KeepAlive, Protocol, Tls
from serving.client.errors import CallError, RequestRefusedError
from serving.client.messages import Outputs, question_of, read_answers
from serving.client.retries import Deadline, repeatedly_async
from serving.protocol import MAX_ROWS

if TYPE_CHECKING:
    from serving.client.grpc_connection import AsyncGrpcConnection
    from serving.client.http_connection import AsyncHttpConnection

T = TypeVar("T")


class AsyncClient(Caller["AsyncGrpcConnection | AsyncHttpConnection"]):
    """`Client` for asyncio: the same arguments, the same calls, awaited.

    It belongs to the event loop of its first call. A cancelled call is cancelled at the server as well.
    """

    _loop: asyncio.AbstractEventLoop | None = None

    def _connect(
        self, address: str, protocol: Protocol, tls: Tls | None, keep_alive: KeepAlive
    ) -> "AsyncGrpcConnection | AsyncHttpConnection":
        if protocol == "grpc":
            from serving.client.grpc_connection import AsyncGrpcConnection

            return AsyncGrpcConnection(address, tls, keep_alive)
        from serving.client.http_connection import AsyncHttpConnection

        return AsyncHttpConnection(address, tls, keep_alive)

    async def classify(
        self,
        texts: Sequence[str],
        *,
        top_k: int | None = None,
        scores: bool = False,
        timeout_s: float | None = None,
    ) -> list[Answer]:
        """See `Client.classify`."""
        self._require_its_loop()
        require_list(texts)
        deadline = self._deadline(timeout_s)
        answers: list[Answer] = []
        for offset in range(0, len(texts), MAX_ROWS):
            part = texts[offset : offset + MAX_ROWS]
            try:
                answers += await self._ask(part, top_k, scores, deadline)
            except CallError as error:
                if len(texts) > MAX_ROWS:
                    error.locate(offset, len(part))
                raise
        return answers

    async def classify_iter(
        self,
        texts: Iterable[str] | AsyncIterable[str],
        *,
        batch: int = MAX_ROWS,
        in_flight: int = 4,
        top_k: int | None = None,
        scores: bool = False,
        timeout_s: float | None = None,
    ) -> AsyncIterator[Answer]:
        """See `Client.classify_iter`; `texts` may be an asynchronous iterable, too.

        Whoever leaves the loop early closes it (`contextlib.aclosing`): that cancels what is in flight.
        """
        require_texts(texts)
        require_batch(batch, in_flight)

        async def ask(numbered: tuple[int, list[str]]) -> list[Answer]:
            number, part = numbered
            try:
                return await self.classify(part, top_k=top_k, scores=scores, timeout_s=timeout_s)
            except CallError as error:
                error.locate(number * batch, len(part))
                raise

        answered = in_order_async(ask, _numbered(batches_async(texts, batch)), in_flight)
        async with contextlib.aclosing(answered) as parts:
            async for part in parts:
                for answer in part:
                    yield answer

    async def score(
        self,
        table: T,
        text: str = "text",
        *,
        prefix: str = "",
        batch: int = MAX_ROWS,
        in_flight: int = 4,
        timeout_s: float | None = None,
    ) -> T:
        """See `Client.score`."""
        from serving.client.tables import open_frame

        frame = open_frame(table, text, prefix)
        answers = self.classify_iter(frame.texts(), batch=batch, in_flight=in_flight, timeout_s=timeout_s)
        return cast("T", frame.with_answers([answer async for answer in answers]))

    async def close(self) -> None:
        """Close the connections; calls under way fail. In a forked process nothing is done."""
        if not self._is_forked:
            await self._connection.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def _require_its_loop(self) -> None:
        """Connections wait for their loop; in another they would fail obscurely, or for ever."""
        loop = asyncio.get_running_loop()
        self._loop = self._loop or loop
        if self._loop is not loop:
            raise RuntimeError("the client belongs to another event loop, that of its first call; make one for each")

    async def _ask(self, texts: Sequence[str], top_k: int | None, scores: bool, deadline: Deadline) -> list[Answer]:
        known = await self._known_outputs(deadline)
        request_id = new_request_id()
        question = question_of(self._model, texts, known, top_k=top_k, scores=scores, request_id=request_id)

        async def attempt(seconds: float) -> list[Answer]:
            reply = await self._connection.infer(question, self._headers(request_id, seconds), seconds)
            return read_answers(reply, question)

        try:
            return await repeatedly_async(attempt, self._retries, deadline)
        except RequestRefusedError:
            # Perhaps the model was replaced by one with other outputs.
            self._outputs = None
            raise

    async def _known_outputs(self, deadline: Deadline) -> Outputs:
        """What the model can be asked for, from its metadata; nothing if that is refused."""
        if self._outputs is None:
            request_id = new_request_id()

            async def attempt(seconds: float) -> Outputs:
                headers = self._headers(request_id, seconds)
                return await self._connection.outputs(self._model, headers, seconds)

            try:
                self._outputs = await repeatedly_async(attempt, self._retries, deadline)
            except RequestRefusedError:
                self._outputs = {}
        return self._outputs


async def _numbered(items: AsyncIterator[T]) -> AsyncIterator[tuple[int, T]]:
    number = 0
    async for item in items:
        yield number, item
        number += 1
