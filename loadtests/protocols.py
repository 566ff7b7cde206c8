"""One request over gRPC or over HTTP: text in, label out, or an error that says why.

Both block the greenlet that calls them and run only where gevent has patched the standard library and gRPC. What
matters is that nothing in a client makes a request wait for another one, as that would turn the open loop into a
closed one behind our back:

- gRPC is Triton's own client. Its blocking `infer` polls a completion queue of its own from gevent's pool of ten
  threads, so the eleventh request would wait; `async_infer` needs one thread a channel, however many requests are
  out. Several channels, because a server may limit the streams of a connection (100 is common); not many, as each
  has a thread to wake. Going through that thread costs about 0.4 ms a request against grpc.aio, which gevent can't
  drive.
- HTTP is JSON over keep-alive connections with the standard library, which is what a caller without Triton's
  library does. `tritonclient.http` would add a pool of fixed size and resend on a closed connection as often as the
  pool is large. A request takes an idle connection or opens a new one; there is no limit but the file descriptors.
"""

import contextlib
import http.client
import itertools
import json
from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from gevent.event import AsyncResult

_CHANNELS = 2
_MAX_MESSAGE_BYTES = 64 * 1024 * 1024
_LONGEST_DETAIL = 300


class RequestError(Exception):
    """The endpoint answered with an error, or the connection failed."""

    def __init__(self, message: str, *, unreachable: bool = False, unknown_model: bool = False) -> None:
        super().__init__(" ".join(message.split())[:_LONGEST_DETAIL])
        self.unreachable = unreachable
        self.unknown_model = unknown_model


class RequestTimeoutError(Exception):
    """No answer in time."""


class Client(ABC):
    """Asks one model at one address."""

    def __init__(self, address: str, model: str, timeout_s: float) -> None:
        """`address` is `host:port`, the host an IP address (in brackets when IPv6)."""
        self.address = address
        self.model = model
        self.timeout_s = timeout_s

    @abstractmethod
    def ask(self, text: str) -> str:
        """The label of `text`. Raises `RequestError` or `RequestTimeoutError`."""

    @abstractmethod
    def close(self) -> None:
        """Drop every connection and what is still out on it."""


class GrpcClient(Client):
    """KServe v2 over gRPC, with tritonclient."""

    def __init__(self, address: str, model: str, timeout_s: float) -> None:
        super().__init__(address, model, timeout_s)
        import tritonclient.grpc

        self._triton = tritonclient.grpc
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
        self._channels = [
            tritonclient.grpc.InferenceServerClient(address, channel_args=options) for _ in range(_CHANNELS)
        ]
        self._next_channel = itertools.cycle(self._channels)
        self._outputs = [tritonclient.grpc.InferRequestedOutput("label")]

    def ask(self, text: str) -> str:  # noqa: D102
        tensor = self._triton.InferInput("text", [1, 1], "BYTES")
        tensor.set_data_from_numpy(np.array([[text.encode()]], dtype=np.object_))
        answer = AsyncResult()
        next(self._next_channel).async_infer(
            self.model,
            [tensor],
            lambda result, error: answer.set((result, error)),
            outputs=self._outputs,
            client_timeout=self.timeout_s,
        )
        result, error = answer.get()
        if error is not None:
            raise _grpc_error(error)
        try:
            label: bytes = result.as_numpy("label").flat[0]
            return label.decode()
        except Exception as error:
            raise RequestError(f"the answer has no readable output 'label': {error!r}") from error

    def close(self) -> None:
        """Cancel what is out; left to the interpreter's end, gRPC would wait for gevent, which is gone by then."""
        for channel in self._channels:
            channel.close()


def _grpc_error(error: Any) -> RequestError | RequestTimeoutError:
    status = str(error.status()).removeprefix("StatusCode.")
    message = f"{status}: {error.message()}"
    if status == "DEADLINE_EXCEEDED":
        return RequestTimeoutError(message)
    # Envoy says UNAVAILABLE too when it has no healthy upstream; only gRPC itself says that it could not connect.
    unreachable = status == "UNAVAILABLE" and "failed to connect" in message.lower()
    return RequestError(message, unreachable=unreachable, unknown_model=_unknown_model(status, message))


class HttpClient(Client):
    """KServe v2 as JSON over HTTP/1.1."""

    def __init__(self, address: str, model: str, timeout_s: float) -> None:
        super().__init__(address, model, timeout_s)
        self._path = f"/v2/models/{model}/infer"
        # The connection used last is taken first, so that the others can age and be closed by the server.
        self._idle: list[http.client.HTTPConnection] = []

    def ask(self, text: str) -> str:  # noqa: D102
        tensor = {"name": "text", "shape": [1, 1], "datatype": "BYTES", "data": [text]}
        # Asked for by name, so that a model's optional outputs (raw logits) are not computed into the figures.
        body = json.dumps({"inputs": [tensor], "outputs": [{"name": "label"}]}, ensure_ascii=False).encode()
        try:
            status, answer = self._exchange(body)
        except TimeoutError as error:
            raise RequestTimeoutError("no answer in time") from error
        except (OSError, http.client.HTTPException) as error:
            unreachable = isinstance(error, ConnectionRefusedError)
            raise RequestError(f"{type(error).__name__}: {error}", unreachable=unreachable) from error
        if status != 200:
            message = f"{status}: {_error_text(answer)}"
            raise RequestError(message, unknown_model=_unknown_model(str(status), message))
        try:
            outputs = {output["name"]: output["data"] for output in json.loads(answer)["outputs"]}
            return str(outputs["label"][0])
        except (ValueError, LookupError, TypeError) as error:
            raise RequestError(f"the answer has no readable output 'label': {error!r}") from error

    def close(self) -> None:  # noqa: D102
        while self._idle:
            self._idle.pop().close()

    def _exchange(self, body: bytes) -> tuple[int, bytes]:
        """Send on an idle connection or a new one.

        A server may close an idle connection just as it is taken; then, as every HTTP client does, the request goes
        once more on a new one. The time is counted from the first attempt.
        """
        if self._idle:
            with contextlib.suppress(http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError):
                return self._exchange_on(self._idle.pop(), body)
        host, _, port = self.address.rpartition(":")
        return self._exchange_on(http.client.HTTPConnection(host.strip("[]"), int(port), timeout=self.timeout_s), body)

    def _exchange_on(self, connection: http.client.HTTPConnection, body: bytes) -> tuple[int, bytes]:
        try:
            connection.request("POST", self._path, body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            answer = response.read()
        # Also when gevent's timeout or the end of the run cuts in: half an answer must not reach the next request.
        except BaseException:
            connection.close()
            raise
        if response.will_close:
            connection.close()
        else:
            self._idle.append(connection)
        return response.status, answer


def _error_text(answer: bytes) -> str:
    try:
        return str(json.loads(answer)["error"])
    except (ValueError, LookupError, TypeError):
        return answer.decode(errors="replace")


def _unknown_model(status: str, message: str) -> bool:
    return status in ("NOT_FOUND", "404") or "unknown model" in message.lower()


CLIENTS: dict[str, type[Client]] = {"grpc": GrpcClient, "http": HttpClient}
