"""gRPC: one channel for all calls; HTTP/2 carries any number of them at a time.

A channel may be used by any number of threads. It doesn't survive `os.fork`: make clients in the process that uses
them.
"""

from typing import Any

from serving.client.connecting import KeepAlive, Tls
from serving.client.errors import CallError, error_of_grpc
from serving.client.messages import (
    RETRY_AFTER,
    RETRY_PUSHBACK_MS,
    Outputs,
    Question,
    Reply,
    grpc_question,
    waiting_time_s,
)
from serving.protocol import REQUEST_ID

_CLOSED = "the client is closed"


class GrpcConnection:
    """Calls from any thread."""

    def __init__(self, address: str, tls: Tls | None, keep_alive: KeepAlive) -> None:
        import grpc

        self._address = address
        options = keep_alive.channel_options(tls)
        if tls is None:
            self._channel = grpc.insecure_channel(address, options)
        else:
            self._channel = grpc.secure_channel(address, tls.channel_credentials(), options)
        self._stub = _stub(self._channel)

    def infer(self, question: Question, headers: dict[str, str], timeout_s: float) -> Reply:
        """Ask; raises a `CallError`."""
        response, call = self._call(self._stub.ModelInfer, grpc_question(question), headers, timeout_s)
        return _reply(response, headers, call.initial_metadata())

    def outputs(self, model: str, headers: dict[str, str], timeout_s: float) -> Outputs:
        """What the model can be asked for; raises a `CallError`."""
        response, _ = self._call(self._stub.ModelMetadata, _metadata_request(model), headers, timeout_s)
        return _outputs(response)

    def close(self) -> None:
        """Calls under way fail."""
        self._channel.close()

    def _call(self, method: Any, request: Any, headers: dict[str, str], timeout_s: float) -> Any:
        import grpc

        try:
            return method.with_call(request, timeout=timeout_s, metadata=tuple(headers.items()))
        except grpc.RpcError as error:
            raise _translated(error, self._address, headers) from None
        except ValueError as error:
            raise _closed(error) from None


class AsyncGrpcConnection:
    """Calls from one event loop, that in which the first is made: a channel belongs to the loop that it is made in."""

    def __init__(self, address: str, tls: Tls | None, keep_alive: KeepAlive) -> None:
        self._address = address
        self._options = keep_alive.channel_options(tls)
        self._credentials = None if tls is None else tls.channel_credentials()
        self._channel: Any = None
        self._closed = False

    async def infer(self, question: Question, headers: dict[str, str], timeout_s: float) -> Reply:
        """Ask; raises a `CallError`."""
        method = self._methods().ModelInfer
        response, metadata = await self._call(method, grpc_question(question), headers, timeout_s)
        return _reply(response, headers, metadata)

    async def outputs(self, model: str, headers: dict[str, str], timeout_s: float) -> Outputs:
        """What the model can be asked for; raises a `CallError`."""
        response, _ = await self._call(self._methods().ModelMetadata, _metadata_request(model), headers, timeout_s)
        return _outputs(response)

    async def close(self) -> None:
        """Calls under way fail."""
        self._closed = True
        if self._channel is not None:
            await self._channel.close()

    def _methods(self) -> Any:
        import grpc

        if self._closed:
            raise RuntimeError(_CLOSED)
        if self._channel is None:
            if self._credentials is None:
                self._channel = grpc.aio.insecure_channel(self._address, self._options)
            else:
                self._channel = grpc.aio.secure_channel(self._address, self._credentials, self._options)
            self._stub = _stub(self._channel)
        return self._stub

    async def _call(self, method: Any, request: Any, headers: dict[str, str], timeout_s: float) -> Any:
        import asyncio

        import grpc

        try:
            call = method(request, timeout=timeout_s, metadata=tuple(headers.items()))
            return await call, await call.initial_metadata()
        except grpc.RpcError as error:
            raise _translated(error, self._address, headers) from None
        except asyncio.CancelledError:
            # Closing a channel cancels its calls; the tasks that wait for them were not.
            task = asyncio.current_task()
            if not self._closed or (task is not None and task.cancelling()):
                raise
        except grpc.aio.UsageError as error:
            raise _closed(error) from None
        raise RuntimeError(_CLOSED)


def _stub(channel: Any) -> Any:
    from tritonclient.grpc import service_pb2_grpc

    return service_pb2_grpc.GRPCInferenceServiceStub(channel)


def _metadata_request(model: str) -> Any:
    from tritonclient.grpc import service_pb2

    return service_pb2.ModelMetadataRequest(name=model)


def _outputs(response: Any) -> Outputs:
    return {output.name: tuple(output.shape) for output in response.outputs}


def _reply(response: Any, headers: dict[str, str], metadata: Any) -> Reply:
    from tritonclient.grpc import InferResult

    request_id = _first(metadata, REQUEST_ID) or headers[REQUEST_ID]
    return Reply(InferResult(response), response.model_version, request_id)


def _translated(error: Any, address: str, headers: dict[str, str]) -> CallError:
    # An answer that is only an error has its headers where trailers are.
    metadata = [*(error.initial_metadata() or ()), *(error.trailing_metadata() or ())]
    retry_after_s = waiting_time_s(_first(metadata, RETRY_AFTER))
    if (pushback_ms := waiting_time_s(_first(metadata, RETRY_PUSHBACK_MS))) is not None:
        retry_after_s = pushback_ms / 1000
    kind = error_of_grpc(error.code().name, asks_to_wait=retry_after_s is not None)
    reason = error.details() or error.code().name
    return kind(
        f"{address}: {reason}" if kind.worth_repeating else reason,
        request_id=_first(metadata, REQUEST_ID) or headers[REQUEST_ID],
        retry_after_s=retry_after_s,
    )


def _closed(error: Exception) -> Exception:
    return RuntimeError(_CLOSED) if "closed" in str(error) else error


def _first(metadata: Any, name: str) -> str | None:
    return next((str(value) for key, value in metadata or () if key == name), None)
