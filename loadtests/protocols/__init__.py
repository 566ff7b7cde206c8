"""One request over one protocol: texts in, labels out, or an error that says why.

    client.py     what all of them are
    grpc.py       KServe v2 over gRPC
    http.py       KServe v2 as JSON over HTTP/1.1
    generate.py   flat JSON over HTTP/1.1

What matters is that nothing in a client makes a request wait for another one, as that would turn the open loop into a
closed one behind our back. A protocol is one class and one line in `CLIENTS`.
"""

from loadtests.protocols.client import Answer, Client, RequestError
from loadtests.protocols.generate import GenerateClient
from loadtests.protocols.grpc import GrpcClient
from loadtests.protocols.http import HttpClient

CLIENTS: dict[str, type[Client]] = {"grpc": GrpcClient, "http": HttpClient, "generate": GenerateClient}

__all__ = ["CLIENTS", "Answer", "Client", "GenerateClient", "GrpcClient", "HttpClient", "RequestError"]
