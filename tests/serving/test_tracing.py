"""One trace from the front door to the model, to a real collector of OTLP over HTTP; and no text in it."""

import base64
import gzip
import http.server
import importlib.util
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

import serving
from serving.model.observation import Answered, Executed, Request
from serving.observability import spans
from serving.observability.settings import Settings, require_extras
from serving.observability.tracing import Collector, collector_clusters, tracing, triton_options, upstream_filters
from serving.protocol import inference_body
from slipway.errors import ServingError
from slipway.recipe import Observe, Serve
from tests.serving.conftest import eventually

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("opentelemetry") is None, reason="needs the extra 'otel'"),
]

TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@dataclass(frozen=True)
class Span:
    """What the tests look at."""

    service: str
    name: str
    trace: str
    id: str
    parent: str
    start_ns: int
    end_ns: int
    attributes: dict[str, Any] = field(hash=False)


class CollectorServer:
    """Takes what is posted to /v1/traces apart, with the protocol's own messages."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.bodies: list[bytes] = []
        collector = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self._body()
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                collector.take(body, self.headers["Content-Type"])
                self.send_response(200)
                self.send_header("Content-Type", "application/x-protobuf")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def _body(self) -> bytes:
                if "Content-Length" in self.headers:
                    return self.rfile.read(int(self.headers["Content-Length"]))
                parts = []
                while size := int(self.rfile.readline(), 16):
                    parts.append(self.rfile.read(size))
                    self.rfile.readline()
                self.rfile.readline()
                return b"".join(parts)

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def take(self, body: bytes, kind: str) -> None:
        """Envoy and the model send protobuf, Triton sends JSON, in which ids are hexadecimal."""
        from google.protobuf import json_format
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

        self.bodies.append(body)
        if kind.startswith("application/json"):
            as_base64 = re.sub(
                rb'"(traceId|spanId|parentSpanId)":"([0-9a-f]*)"',
                lambda found: b'"%s":"%s"' % (found[1], base64.b64encode(bytes.fromhex(found[2].decode()))),
                body,
            )
            request = json_format.Parse(as_base64, ExportTraceServiceRequest())
        else:
            request = ExportTraceServiceRequest.FromString(body)
        for resource in request.resource_spans:
            about = {one.key: one.value.string_value for one in resource.resource.attributes}
            for span in (span for scope in resource.scope_spans for span in scope.spans):
                self.spans.append(
                    Span(
                        about.get("service.name", ""),
                        span.name,
                        span.trace_id.hex(),
                        span.span_id.hex(),
                        span.parent_span_id.hex(),
                        span.start_time_unix_nano,
                        span.end_time_unix_nano,
                        {one.key: str(one.value) for one in span.attributes},
                    )
                )

    def of_trace(self, trace: str) -> dict[str, Span]:
        """Spans by `service/name`."""
        return {f"{span.service}/{span.name}": span for span in list(self.spans) if span.trace == trace}

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture(scope="module")
def collector() -> Iterator[CollectorServer]:
    server = CollectorServer()
    yield server
    server.close()


@pytest.fixture(scope="module")
def traced(repository: Path, collector: CollectorServer) -> Iterator[serving.Endpoint]:
    observe = Observe(otlp=collector.url, trace_sample=0.0, service="bank")
    with serving.start(repository, Serve(port=0, observe=observe)) as running:
        yield running


def ask(endpoint: serving.Endpoint, flags: str | None, trace: str = TRACE, text: str = "good", query: str = "") -> None:
    headers = {} if flags is None else {"traceparent": f"00-{trace}-{CALLER}-{flags}"}
    answer = httpx.post(
        f"{endpoint.url}/v2/models/{endpoint.model}/infer{query}",
        json=inference_body(text),
        headers=headers,
        timeout=30,
    )
    assert answer.status_code == 200, answer.text


@pytest.mark.integration
def test_one_trace_goes_from_the_caller_through_every_part(
    traced: serving.Endpoint, collector: CollectorServer
) -> None:
    ask(traced, "01", text="好 a secret text", query="?note=secret")
    assert eventually(lambda: {"bank-model/decode", "bank-triton/InferRequest"} <= set(collector.of_trace(TRACE)))
    assert eventually(lambda: any(name.startswith("bank-front-door/") for name in collector.of_trace(TRACE)))
    found = collector.of_trace(TRACE)
    [door] = [span for span in found.values() if span.service == "bank-front-door"]
    triton, execution = found["bank-triton/InferRequest"], found[f"bank-triton/{traced.model}"]
    model = found["bank-model/model"]
    assert door.parent == CALLER
    assert triton.parent == door.id
    assert execution.parent == triton.id
    assert model.parent == execution.id
    for name in ("tokenize", "run", "decode"):
        assert found[f"bank-model/{name}"].parent == model.id
    assert door.start_ns <= model.start_ns <= model.end_ns <= door.end_ns
    # The two spans of the engine's and the tokenizer's time follow each other.
    assert found["bank-model/tokenize"].end_ns == found["bank-model/run"].start_ns
    assert not any(b"secret" in body or b"httpx" in body for body in collector.bodies)


@pytest.mark.integration
def test_a_request_that_is_not_sampled_leaves_no_span_anywhere(
    traced: serving.Endpoint, collector: CollectorServer
) -> None:
    unsampled, undecided_before = "1" * 32, len(collector.spans)
    ask(traced, "00", trace=unsampled)
    ask(traced, None)
    marker = "2" * 32
    ask(traced, "01", trace=marker)
    assert eventually(lambda: {"bank-model/decode", "bank-triton/InferRequest"} <= set(collector.of_trace(marker)))
    assert collector.of_trace(unsampled) == {}
    assert {span.trace for span in collector.spans[undecided_before:]} <= {marker, TRACE}


@pytest.mark.integration
def test_grpc_requests_are_traced_as_well_with_or_without_tritons_part(
    traced: serving.Endpoint, collector: CollectorServer
) -> None:
    import numpy as np
    from tritonclient import grpc

    traces = [f"{number:032x}" for number in range(1, 11)]
    with grpc.InferenceServerClient(traced.address) as client:
        tensor = grpc.InferInput("text", [1, 1], "BYTES")
        tensor.set_data_from_numpy(np.array([[b"good"]], dtype=np.object_))
        for trace in traces:
            client.infer(traced.model, [tensor], headers={"traceparent": f"00-{trace}-{CALLER}-01"})

    def is_whole(trace: str) -> bool:
        found = collector.of_trace(trace)
        model, door = found.get("bank-model/model"), found.get("bank-front-door/ingress")
        return model is not None and door is not None and model.parent in {span.id for span in found.values()}

    assert eventually(lambda: all(is_whole(trace) for trace in traces))
    # Triton reads the header of a few gRPC calls past its end, and leaves them out.
    assert eventually(
        lambda: sum("bank-triton/InferRequest" in collector.of_trace(trace) for trace in traces) > len(traces) / 2
    )


def executed(*requests: Request, refused: Request | None = None) -> Executed:
    answered = [Answered(one, ["a secret text"], ["positive"], [0.9], [False], [1]) for one in requests]
    return Executed(10.0, 10.1, 10.3, 10.35, 7, 1, 1, answered, [(refused, "bad_text")] if refused else [])


@pytest.mark.unit
def test_the_models_spans_have_the_times_of_the_call_and_numbers_only(collector: CollectorServer) -> None:
    observer = spans.Spans(collector.url, "x", model="tiny", version="1")
    trace = "4" * 32
    observer.executed(executed(Request(traceparent=f"00-{trace}-{CALLER}-01", arrived_s=9.5)))
    observer.close()
    found = collector.of_trace(trace)
    assert set(found) == {"x-model/model", "x-model/tokenize", "x-model/run", "x-model/decode"}
    run = found["x-model/run"]
    assert (run.start_ns, run.end_ns) == (int(10.1e9), int(10.3e9))
    assert "500" in found["x-model/model"].attributes["queue_ms"]
    assert not any("secret" in str(span) for span in found.values())


@pytest.mark.unit
def test_a_refused_request_is_one_span_with_the_reason(collector: CollectorServer) -> None:
    observer = spans.Spans(collector.url, "x", model="tiny", version="1")
    trace = "5" * 32
    observer.executed(executed(refused=Request(traceparent=f"00-{trace}-{CALLER}-01")))
    observer.close()
    [span] = collector.of_trace(trace).values()
    assert "bad_text" in span.attributes["refused"]


@pytest.mark.unit
@pytest.mark.parametrize("parent", ["", "nonsense", f"00-{TRACE}-{CALLER}-00", f"00-{TRACE}-{CALLER}-"])
def test_what_is_not_sampled_makes_no_span(collector: CollectorServer, parent: str) -> None:
    before = len(collector.spans)
    observer = spans.Spans(collector.url, "x", model="tiny", version="1")
    observer.executed(executed(Request(traceparent=parent)))
    observer.close()
    assert len(collector.spans) == before


@pytest.mark.unit
def test_a_collector_that_is_gone_costs_spans_not_answers() -> None:
    observer = spans.Spans("http://127.0.0.1:9", "x", model="tiny", version="1")
    for _ in range(1000):
        observer.executed(executed(Request(traceparent=f"00-{TRACE}-{CALLER}-01")))
    observer.close()


@pytest.mark.unit
def test_without_a_collector_nothing_is_said_of_traces() -> None:
    assert (tracing(None), collector_clusters(None), upstream_filters(None), triton_options(None)) == ({}, [], {}, [])
    assert Collector.of(Observe().model_dump(mode="json")) is None


@pytest.mark.unit
def test_traces_without_their_extra_name_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spans.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ServingError, match=r"slipway\[otel\]"):
        require_extras(Settings(otlp="http://127.0.0.1:4318"))


@pytest.mark.unit
@pytest.mark.parametrize("url", ["127.0.0.1:4318", "grpc://host:4317", "http://host:4318/v1/traces", "http://a:b@host"])
def test_an_address_that_is_no_collectors_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="collector"):
        Observe(otlp=url)
