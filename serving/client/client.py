"""`Client`: calls from threads."""

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Self, TypeVar, cast

from serving.client.answers import Answer
from serving.client.batching import batches, in_order
from serving.client.calls import Caller, new_request_id, require_batch, require_list, require_texts
from serving.client.connecting import KeepAlive, Protocol, Tls
from serving.client.errors import CallError, RequestRefusedError
from serving.client.messages import Outputs, question_of, read_answers
from serving.client.retries import Deadline, repeatedly
from serving.protocol import MAX_ROWS

if TYPE_CHECKING:
    from serving.client.grpc_connection import GrpcConnection
    from serving.client.http_connection import HttpConnection

T = TypeVar("T")


class Client(Caller["GrpcConnection | HttpConnection"]):
    """Classifies texts through the endpoint at `address` (`host:port`); both protocols share the port.

    One client serves any number of threads, keeps its connections open and is cheap to use and dear to make: keep it.
    After `os.fork` (multiprocessing, prefork servers) the child makes its own; a call there is a `RuntimeError`.

    `timeout_s` is the time for a whole call, attempts and waits included; the server is told what is left of it.
    `token` may be a function that gives the current one (see `serving.client.connecting`). Failures are a `CallError`
    each: see `serving.client.errors` for what to do about which.
    """

    def _connect(
        self, address: str, protocol: Protocol, tls: Tls | None, keep_alive: KeepAlive
    ) -> "GrpcConnection | HttpConnection":
        if protocol == "grpc":
            from serving.client.grpc_connection import GrpcConnection

            return GrpcConnection(address, tls, keep_alive)
        from serving.client.http_connection import HttpConnection

        return HttpConnection(address, tls, keep_alive)

    def classify(
        self,
        texts: Sequence[str],
        *,
        top_k: int | None = None,
        scores: bool = False,
        timeout_s: float | None = None,
    ) -> list[Answer]:
        """An answer for each text, in order.

        `top_k` fills `Answer.scores` with so many labels, `scores` with all. More than 64 texts are several requests,
        one after the other, within the one `timeout_s`: for thousands take `classify_iter`. Raises a `CallError`.
        """
        require_list(texts)
        deadline = self._deadline(timeout_s)
        answers: list[Answer] = []
        for offset in range(0, len(texts), MAX_ROWS):
            part = texts[offset : offset + MAX_ROWS]
            try:
                answers += self._ask(part, top_k, scores, deadline)
            except CallError as error:
                if len(texts) > MAX_ROWS:
                    error.locate(offset, len(part))
                raise
        return answers

    def classify_iter(
        self,
        texts: Iterable[str],
        *,
        batch: int = MAX_ROWS,
        in_flight: int = 4,
        top_k: int | None = None,
        scores: bool = False,
        timeout_s: float | None = None,
    ) -> Iterator[Answer]:
        """Answers as they come, in the order of `texts`, which may be any iterable, endless ones included.

        At most `in_flight` requests of `batch` texts are under way, and no more is read of `texts`; each has
        `timeout_s`. Raises the first `CallError` that there is, after all answers before it; its `offset` is the number
        of its first text.
        """
        require_texts(texts)
        require_batch(batch, in_flight)

        def ask(numbered: tuple[int, list[str]]) -> list[Answer]:
            number, part = numbered
            try:
                return self.classify(part, top_k=top_k, scores=scores, timeout_s=timeout_s)
            except CallError as error:
                error.locate(number * batch, len(part))
                raise

        def answers() -> Iterator[Answer]:
            with contextlib.closing(in_order(ask, enumerate(batches(texts, batch)), in_flight)) as parts:
                for part in parts:
                    yield from part

        return answers()

    def score(
        self,
        table: T,
        text: str = "text",
        *,
        prefix: str = "",
        batch: int = MAX_ROWS,
        in_flight: int = 4,
        timeout_s: float | None = None,
    ) -> T:
        """`table` (a pandas DataFrame, a pyarrow Table or RecordBatch) with four more columns.

        They are label, score, truncated and version, each after `prefix`. A row without text (null or blank) gets null
        in all of them. Raises `DataError` if the column `text` isn't there or isn't text, or if one of the new columns
        is there already; a `CallError` if a request fails.
        """
        from serving.client.tables import open_frame

        frame = open_frame(table, text, prefix)
        answers = self.classify_iter(frame.texts(), batch=batch, in_flight=in_flight, timeout_s=timeout_s)
        return cast("T", frame.with_answers(list(answers)))

    def close(self) -> None:
        """Close the connections; calls under way fail. In a forked process nothing is done."""
        if not self._is_forked:
            self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ask(self, texts: Sequence[str], top_k: int | None, scores: bool, deadline: Deadline) -> list[Answer]:
        known = self._known_outputs(deadline)
        request_id = new_request_id()
        question = question_of(self._model, texts, known, top_k=top_k, scores=scores, request_id=request_id)

        def attempt(seconds: float) -> list[Answer]:
            reply = self._connection.infer(question, self._headers(request_id, seconds), seconds)
            return read_answers(reply, question)

        try:
            return repeatedly(attempt, self._retries, deadline)
        except RequestRefusedError:
            # Perhaps the model was replaced by one with other outputs.
            self._outputs = None
            raise

    def _known_outputs(self, deadline: Deadline) -> Outputs:
        """What the model can be asked for, from its metadata; nothing if that is refused."""
        if self._outputs is None:
            request_id = new_request_id()
            try:
                self._outputs = repeatedly(
                    lambda seconds: self._connection.outputs(self._model, self._headers(request_id, seconds), seconds),
                    self._retries,
                    deadline,
                )
            except RequestRefusedError:
                self._outputs = {}
        return self._outputs
