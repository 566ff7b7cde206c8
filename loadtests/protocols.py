"""One request over gRPC or over HTTP: text in, label out, or an error that says why.

What matters is that nothing in a client makes a request wait for another one, as that would turn the open loop into a
closed one behind our back:

- gRPC is Triton's own client, `tritonclient.grpc.aio`. Two channels, because a server may limit the streams of a
  connection (Slipway's front door: 1024).
- HTTP is JSON over keep-alive connections with aiohttp, which is what a caller without Triton's library does.
  `tritonclient.http` would add a pool of fixed size and resend on a closed connection as often as the pool is large.
  A request takes an idle connection or opens a new one; there is no limit but the file descriptors.
"""

import itertools
import json
from abc import ABC, abstractmethod
from typing import Any

import aiohttp
import numpy as np
import tritonclient.grpc.aio as triton
from tritonclient.utils import InferenceServerException

_CHANNELS = 2
_MAX_MESSAGE_BYTES = 64 * 1024 * 1024
_LONGEST_DETAIL = 300


class RequestError(Exception):
    """The endpoint answered with an error, or the connection failed."""

    def __init__(self, message: str, *, unreachable: bool = False, unknown_model: bool = False) -> None:
        super().__init__(" ".join(message.split())[:_LONGEST_DETAIL])
        self.unreachable = unreachable
        self.unknown_model = unknown_model


class Client(ABC):
    """Asks one model at one address; made and used within one event loop."""

    def __init__(self, address: str, model: str) -> None:
        """`address` is `host:port`, the host an IP address (in brackets when IPv6)."""
        self.address = address
        self.model = model

    @abstractmethod
    async def ask(self, text: str) -> str:
        """The label of `text`. Raises `RequestError`; waits for as long as it is let."""

    @abstractmethod
    async def close(self) -> None:
        """Drop every connection and what is still out on it."""


class GrpcClient(Client):
    """KServe v2 over gRPC, with tritonclient."""

    def __init__(self, address: str, model: str) -> None:
        super().__init__(address, model)
        options = [
            ("grpc.max_send_message_length", _MAX_MESSAGE_BYTES),
            ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
            # Otherwise the channels share one connection.
            ("grpc.use_local_subchannel_pool", 1),
            # gRPC's own back-off reaches two minutes: a server that is back would look down.
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.min_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 1000),
            # Load is meant for the address that was given.
            ("grpc.enable_http_proxy", 0),
        ]
        self._channels = [triton.InferenceServerClient(address, channel_args=options) for _ in range(_CHANNELS)]
        self._next_channel = itertools.cycle(self._channels)
        # Asked for by name, so that a model's optional outputs (raw logits) are not computed into the figures.
        self._outputs = [triton.InferRequestedOutput("label")]

    async def ask(self, text: str) -> str:  # noqa: D102
        tensor = triton.InferInput("text", [1, 1], "BYTES")
        tensor.set_data_from_numpy(np.array([[text.encode()]], dtype=np.object_))
        try:
            result = await next(self._next_channel).infer(self.model, [tensor], outputs=self._outputs)
        except InferenceServerException as error:
            raise _grpc_error(error) from error
        try:
            label: bytes = result.as_numpy("label").flat[0]
            return label.decode()
        except Exception as error:
            raise RequestError(f"the answer has no readable output 'label': {error!r}") from error

    async def close(self) -> None:  # noqa: D102
        for channel in self._channels:
            await channel.close()


def _grpc_error(error: Any) -> RequestError:
    status = str(error.status()).removeprefix("StatusCode.")
    message = f"{status}: {error.message()}"
    # Envoy says UNAVAILABLE too when it has no healthy upstream; only gRPC itself says that it could not connect.
    unreachable = status == "UNAVAILABLE" and "failed to connect" in message.lower()
    return RequestError(message, unreachable=unreachable, unknown_model=_unknown_model(status, message))


class HttpClient(Client):
    """KServe v2 as JSON over HTTP/1.1."""

    def __init__(self, address: str, model: str) -> None:
        super().__init__(address, model)
        self._url = f"http://{address}/v2/models/{model}/infer"
        # Time limits are the caller's; a proxy named in the environment is not asked.
        connections = aiohttp.TCPConnector(limit=0)
        self._session = aiohttp.ClientSession(connector=connections, timeout=aiohttp.ClientTimeout(total=None))

    async def ask(self, text: str) -> str:  # noqa: D102
        tensor = {"name": "text", "shape": [1, 1], "datatype": "BYTES", "data": [text]}
        body = json.dumps({"inputs": [tensor], "outputs": [{"name": "label"}]}, ensure_ascii=False).encode()
        try:
            async with self._session.post(
                self._url, data=body, headers={"Content-Type": "application/json"}
            ) as response:
                answer = await response.read()
        except aiohttp.ClientError as error:
            unreachable = isinstance(error, aiohttp.ClientConnectorError)
            raise RequestError(f"{type(error).__name__}: {error}", unreachable=unreachable) from error
        if response.status != 200:
            message = f"{response.status}: {_error_text(answer)}"
            raise RequestError(message, unknown_model=_unknown_model(str(response.status), message))
        try:
            outputs = {output["name"]: output["data"] for output in json.loads(answer)["outputs"]}
            return str(outputs["label"][0])
        except (ValueError, LookupError, TypeError) as error:
            raise RequestError(f"the answer has no readable output 'label': {error!r}") from error

    async def close(self) -> None:  # noqa: D102
        await self._session.close()


def _error_text(answer: bytes) -> str:
    try:
        return str(json.loads(answer)["error"])
    except (ValueError, LookupError, TypeError):
        return answer.decode(errors="replace")


def _unknown_model(status: str, message: str) -> bool:
    return status in ("NOT_FOUND", "404") or "unknown model" in message.lower()


CLIENTS: dict[str, type[Client]] = {"grpc": GrpcClient, "http": HttpClient}
