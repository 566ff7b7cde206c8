"""KServe v2 over gRPC, with Triton's own client, `tritonclient.grpc.aio`.

Two channels unless told, because a server may limit the streams of a connection (Slipway's front door: 1024).
"""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import tritonclient.grpc.aio as triton
from tritonclient.utils import InferenceServerException

from loadtests.access import Access
from loadtests.protocols.client import Answer, Client, RequestError, unknown_model, unreadable

_CHANNELS = 2
_MAX_MESSAGE_BYTES = 64 * 1024 * 1024


class GrpcClient(Client):
    """A request is one message; channels take turns."""

    def __init__(self, address: str, model: str, access: Access | None = None, connections: int | None = None) -> None:
        super().__init__(address, model, access, connections)
        options: list[tuple[str, Any]] = [
            ("grpc.max_send_message_length", _MAX_MESSAGE_BYTES),
            ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
            # Otherwise the channels share one connection.
            ("grpc.use_local_subchannel_pool", 1),
            # gRPC's own back-off reaches two minutes: a server that is back would look down.
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 1000),
            # Whatever its name says, this is how long connecting may take; 0.1 s is short on a busy machine.
            ("grpc.min_reconnect_backoff_ms", 2000),
            # Load is meant for the address that was given.
            ("grpc.enable_http_proxy", 0),
        ]
        secured: dict[str, Any] = {}
        if tls := self.access.tls:
            options.append(("grpc.ssl_target_name_override", tls.server_name))
            secured = {
                "ssl": True,
                "root_certificates": str(tls.ca) if tls.ca else None,
                "certificate_chain": str(tls.certificate) if tls.certificate else None,
                "private_key": str(tls.key) if tls.key else None,
            }
        self._channels = [
            triton.InferenceServerClient(address, channel_args=options, **secured)
            for _ in range(self.connections or _CHANNELS)
        ]
        self._next_channel = itertools.cycle(self._channels)
        # Asked for by name, so that a model's optional outputs (raw logits) are not computed into the figures.
        self._outputs = [triton.InferRequestedOutput("label")]

    async def ask(self, texts: Sequence[str]) -> Answer:  # noqa: D102
        tensor = triton.InferInput("text", [len(texts), 1], "BYTES")
        tensor.set_data_from_numpy(np.array([[text.encode()] for text in texts], dtype=np.object_))
        try:
            result = await next(self._next_channel).infer(
                self.model, [tensor], outputs=self._outputs, headers=self.access.headers or None
            )
        except InferenceServerException as error:
            raise _error(error) from error
        try:
            labels = result.as_numpy("label").reshape(len(texts), -1)[:, 0]
            return Answer([label.decode() for label in labels], result.get_response().model_version)
        except Exception as error:
            raise unreadable(error) from error

    async def close(self) -> None:  # noqa: D102
        for channel in self._channels:
            await channel.close()


def _error(error: Any) -> RequestError:
    status = str(error.status()).removeprefix("StatusCode.")
    message = f"{status}: {error.message()}"
    # Envoy says UNAVAILABLE too when it has no healthy upstream; only gRPC itself says that it could not connect.
    unreachable = status == "UNAVAILABLE" and "failed to connect" in message.lower()
    return RequestError(
        message,
        unreachable=unreachable,
        unknown_model=unknown_model(status, message),
        refused=status in ("UNAUTHENTICATED", "PERMISSION_DENIED"),
    )
