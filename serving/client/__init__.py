"""A caller's side of an endpoint: texts in, answers out, errors with names.

    client.py           `Client`, for threads
    async_client.py     `AsyncClient`, for asyncio
    answers.py          what comes back for a text
    errors.py           one exception for each thing that a caller can do about a failure
    retries.py          what is sent again, when, and until when
    connecting.py       TLS, credentials, keep-alive
    messages.py         questions and answers as both protocols write them
    grpc_connection.py  gRPC
    http_connection.py  HTTP
    batching.py         iterables in batches, several in flight, answers in order
    tables.py           data frames and Arrow tables
    table_files.py      Parquet, CSV and JSON lines, streamed

Messages, their encoding and the gRPC stub are NVIDIA's tritonclient. Its `InferenceServerClient` classes are not used:
they drop the headers of an answer (`Retry-After`, the request id), and the one for HTTP is bound to a single thread and
to the timeout that it was made with. Connections are grpc's and httpx's instead.
"""

from serving.client.answers import Answer
from serving.client.async_client import AsyncClient
from serving.client.client import Client
from serving.client.connecting import Credentials, KeepAlive, Protocol, Tls
from serving.client.curl import curl_line
from serving.client.errors import (
    CallError,
    DeadlineExceededError,
    EndpointFailedError,
    EndpointUnavailableError,
    ForbiddenError,
    RateLimitedError,
    RequestRefusedError,
    UnauthenticatedError,
)
from serving.client.retries import Retries

__all__ = [
    "Answer",
    "AsyncClient",
    "CallError",
    "Client",
    "Credentials",
    "DeadlineExceededError",
    "EndpointFailedError",
    "EndpointUnavailableError",
    "ForbiddenError",
    "KeepAlive",
    "Protocol",
    "RateLimitedError",
    "RequestRefusedError",
    "Retries",
    "Tls",
    "UnauthenticatedError",
    "curl_line",
]
