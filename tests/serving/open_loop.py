"""Open-loop load that remembers every answer: requests come on a schedule whatever the server does, and none is
forgotten.

A text's right label depends on which version answered it, and the answer says which; so an answer is wrong only if that
version's own bundle says otherwise.
"""

import asyncio
import contextlib
import itertools
import ssl
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

import grpc
import httpx
import numpy as np
import tritonclient.grpc.aio as triton
from tritonclient.utils import InferenceServerException

from serving.protocol import INPUT, LABEL, inference_body
from slipway.bundle import Bundle
from slipway.predictor import Predictor

Protocol = Literal["http", "grpc"]
Kind = Literal["answered", "refused", "failed", "lost"]
"""Answered; told to try again (503, UNAVAILABLE, or no connection); answered with another error; nothing came back."""

_RETRY_S = 0.05


@dataclass
class Outcome:
    """What became of one request, after `attempts`."""

    protocol: Protocol
    text: str
    sent: float
    """Of the monotonic clock."""
    kind: Kind = "lost"
    detail: str = ""
    label: str = ""
    version: int = 0
    attempts: list[str] = field(default_factory=list)
    """What went wrong in the ones before the last."""
    ended: float = 0.0


class Load:
    """Requests at a constant rate, over both protocols in turn; `patience_s` is how long a caller tries again.

    With no patience a caller takes the first outcome for what it is. `ca` is the authority's file where the endpoint
    speaks TLS; each HTTP request then has a connection, and a handshake, of its own.
    """

    def __init__(
        self,
        address: str,
        model: str,
        texts: Sequence[str],
        *,
        rate: float = 40.0,
        patience_s: float = 0.0,
        protocols: Sequence[Protocol] = ("http", "grpc"),
        ca: Path | None = None,
    ) -> None:
        self.outcomes: list[Outcome] = []
        self._address = address
        self._model = model
        self._texts = texts
        self._rate = rate
        self._patience_s = patience_s
        self._protocols = protocols
        self._ca = ca
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="open-loop load")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Send no more, and wait for what is under way."""
        self._stopping.set()
        self._thread.join()

    def count(self, kind: Kind, *, since: float = 0.0) -> int:
        """How many requests sent after `since` ended so."""
        return sum(one.kind == kind and one.sent >= since for one in self.outcomes)

    def answered_by(self, version: int) -> int:
        """How many a version answered."""
        return sum(one.kind == "answered" and one.version == version for one in self.outcomes)

    def wrong(self, answers: Mapping[int, Mapping[str, str]]) -> list[Outcome]:
        """Answers that are not what the version that gave them says."""
        return [
            one
            for one in self.outcomes
            if one.kind == "answered" and answers.get(one.version, {}).get(one.text) != one.label
        ]

    def said_not_to_try_again(self) -> list[str]:
        """Errors that a careful client takes for final: neither 503 nor 504, UNAVAILABLE or a broken connection."""
        tried = [what for one in self.outcomes for what in one.attempts]
        return [what for what in tried if what.startswith("failed") and not what.startswith("failed 504")]

    def story(self) -> str:
        """What happened, for a failed assertion."""
        ended = Counter(f"{one.protocol} {one.kind} {one.detail[:120]}" for one in self.outcomes)
        tried = Counter(f"{one.protocol} tried again: {what[:120]}" for one in self.outcomes for what in one.attempts)
        return "\n".join(f"{number:>6} {what}" for what, number in (ended + tried).most_common())

    async def _run(self) -> None:
        ca = str(self._ca) if self._ca is not None else None
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=0 if ca else 20)
        verify = ssl.create_default_context(cafile=ca) if ca else True
        async with (
            httpx.AsyncClient(timeout=30, limits=limits, verify=verify) as http,
            triton.InferenceServerClient(self._address, ssl=ca is not None, root_certificates=ca) as rpc,
        ):
            started, tasks = time.monotonic(), set()
            for number in itertools.count():
                due = started + number / self._rate
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                if self._stopping.is_set():
                    break
                protocol = self._protocols[number % len(self._protocols)]
                text = self._texts[number // len(self._protocols) % len(self._texts)]
                outcome = Outcome(protocol, text, time.monotonic())
                self.outcomes.append(outcome)
                client = http if protocol == "http" else rpc
                tasks.add(task := asyncio.create_task(self._call(outcome, client)))
                task.add_done_callback(tasks.discard)
            await asyncio.gather(*tasks)

    async def _call(self, outcome: Outcome, client: Any) -> None:
        while True:
            ask = self._http if outcome.protocol == "http" else self._grpc
            outcome.kind, outcome.detail = await ask(outcome, client)
            outcome.ended = time.monotonic()
            if outcome.kind == "answered" or outcome.ended - outcome.sent > self._patience_s:
                return
            outcome.attempts.append(f"{outcome.kind} {outcome.detail}")
            await asyncio.sleep(_RETRY_S)

    async def _http(self, outcome: Outcome, client: httpx.AsyncClient) -> tuple[Kind, str]:
        url = f"{'http' if self._ca is None else 'https'}://{self._address}/v2/models/{self._model}/infer"
        try:
            response = await client.post(url, json=inference_body(outcome.text))
        except httpx.ConnectError as error:
            return "refused", repr(error)
        except httpx.HTTPError as error:
            return "lost", repr(error)
        if response.status_code == 200:
            body = response.json()
            outcome.version = int(body["model_version"])
            outcome.label = next(output["data"][0] for output in body["outputs"] if output["name"] == LABEL)
            return "answered", ""
        return ("refused" if response.status_code == 503 else "failed"), f"{response.status_code} {response.text}"

    async def _grpc(self, outcome: Outcome, client: Any) -> tuple[Kind, str]:
        column = np.array([[outcome.text.encode()]], dtype=np.object_)
        tensor = triton.InferInput(INPUT, [1, 1], "BYTES")
        tensor.set_data_from_numpy(column)
        try:
            result = await client.infer(self._model, [tensor], client_timeout=30)
        except InferenceServerException as error:
            status, message = str(error.status()), str(error.message())
            if status == "StatusCode.UNAVAILABLE":
                # What never left, and what Envoy refused, can be sent again; a stream that broke is lost.
                broke = any(sign in message for sign in ("Socket closed", "Connection reset", "GOAWAY", "recvmsg"))
                return ("lost" if broke else "refused"), message
            return "failed", f"{status} {message}"
        except grpc.RpcError as error:
            return "lost", repr(error)
        outcome.version = int(result.get_response().model_version)
        outcome.label = result.as_numpy(LABEL)[0, 0].decode()
        return "answered", ""


def answers(bundle: Bundle, texts: Sequence[str]) -> dict[str, str]:
    """What the bundle's model says to `texts`, computed here."""
    predictor = Predictor(bundle.path, bundle.spec, bundle.target("cpu"))
    return dict(zip(texts, predictor.predict(texts).labels, strict=True))


@contextlib.contextmanager
def restored(load: Load) -> Iterator[None]:
    """The block breaks something; afterwards wait until requests that were sent later are answered."""
    yield
    broke = time.monotonic()
    deadline = broke + 30
    while load.count("answered", since=broke) < 40:
        assert time.monotonic() < deadline, load.story()
        time.sleep(0.05)
