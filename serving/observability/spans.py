"""The model's spans: what a request's share of a call of the model was.

For each request whose `traceparent` says that it is sampled: a span `model` from the start of the call to its end, and
in it `tokenize`, `run` and `decode`. Requests that are answered in one call have the same times, and say in `requests`
how many they were. Attributes are numbers and the names of a reason and of the model; there is no text in any.

Spans are made only for sampled requests and sent by a thread, from a queue that drops when it is full: a collector that
is slow or gone costs spans, not answers. opentelemetry-sdk is in the extra `slipway[otel]`.
"""

import importlib.util
import logging
from typing import Any

from serving.model.observation import Executed, Request
from serving.observability.tracing import TRACES_PATH
from slipway.errors import ServingError

_QUEUED_SPANS = 2048
_SENT_EVERY_MS = 1000
_TIMEOUT_S = 2


def require_opentelemetry() -> None:
    """Raise `ServingError` that names the extra, if it is not installed."""
    for name in ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http"):
        try:
            found = importlib.util.find_spec(name) is not None
        except ModuleNotFoundError:
            found = False
        if not found:
            raise ServingError(
                f"serve.observe.otlp sends traces, which needs {name}, which is not installed; "
                "try: pip install 'slipway[otel]', or leave otlp out."
            )


class Spans:
    """An `Observer` that sends spans to the collector at `otlp`, the base address."""

    def __init__(self, otlp: str, service: str, *, model: str, version: str) -> None:
        require_opentelemetry()
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        # A collector that is down would be told of in the log with each batch.
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
        resource = {"service.name": f"{service}-model", "slipway.model": model, "slipway.version": version}
        self._provider = TracerProvider(resource=Resource(resource), shutdown_on_exit=False)
        self._provider.add_span_processor(
            BatchSpanProcessor(
                OTLPSpanExporter(endpoint=otlp + TRACES_PATH, timeout=_TIMEOUT_S),
                max_queue_size=_QUEUED_SPANS,
                schedule_delay_millis=_SENT_EVERY_MS,
            )
        )
        self._tracer = self._provider.get_tracer("slipway")

    def executed(self, batch: Executed) -> None:
        """Make the spans of what is sampled."""
        requests = len(batch.answered) + len(batch.refused)
        for answered in batch.answered:
            if _is_sampled(answered.request.traceparent):
                self._trace(batch, answered.request, {"rows": len(answered.texts), "requests": requests})
        for request, reason in batch.refused:
            if _is_sampled(request.traceparent):
                self._trace(batch, request, {"refused": reason, "requests": requests})

    def close(self) -> None:
        """Send what is queued."""
        self._provider.shutdown()

    def _trace(self, batch: Executed, request: Request, attributes: dict[str, Any]) -> None:
        from opentelemetry import trace

        if request.arrived_s:
            attributes["queue_ms"] = round(1e3 * max(0.0, batch.started_s - request.arrived_s), 3)
        attributes |= {"batch_tokens": batch.tokens, "batch_runs": batch.runs}
        span = self._tracer.start_span(
            "model", _context(request.traceparent), start_time=_ns(batch.started_s), attributes=attributes
        )
        if "refused" in attributes:
            span.set_status(trace.StatusCode.ERROR)
        else:
            inside = trace.set_span_in_context(span)
            moments = (batch.started_s, batch.tokenized_s, batch.computed_s, batch.ended_s)
            for name, start, end in zip(("tokenize", "run", "decode"), moments, moments[1:], strict=False):
                self._tracer.start_span(name, inside, start_time=_ns(start)).end(_ns(max(start, end)))
        span.end(_ns(batch.ended_s))


def _is_sampled(traceparent: str) -> bool:
    """By the flags at the end of `00-TRACE-SPAN-FLAGS` (W3C Trace Context)."""
    return len(traceparent) >= 55 and traceparent[54] in "13579bdf"


def _context(traceparent: str) -> Any:
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    return TraceContextTextMapPropagator().extract({"traceparent": traceparent})


def _ns(seconds: float) -> int:
    return int(seconds * 1e9)
