"""What a recipe may say about watching the endpoint: metrics, logs, traces, captured requests."""

from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from slipway.recipe.section import Section


def _otlp(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.path.strip("/") or parts.query:
        raise ValueError(
            f"{url!r} is not the base address of an OTLP/HTTP collector; write http://HOST:4318, without a path"
        )
    if parts.username is not None:
        raise ValueError("a password in the collector's address would end up in logs; use a collector on this machine")
    return url.rstrip("/")


def _absolute(path: str) -> str:
    # The processes that write there have another working directory.
    return str(Path(path).expanduser().absolute())


class Capture(Section):
    """A sample of the requests, masked, to label and to learn from later."""

    rate: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of the requests that is written; 0: none, and nothing is ever written."""
    directory: Annotated[str, AfterValidator(_absolute)] | None = None
    """Folder for the JSON Lines, from the recipe's if relative; made with mode 0700, files in it with 0600."""
    max_mb: Annotated[float, Field(gt=0)] = 100.0
    """Megabytes (10^6 bytes) that all files together may take; the oldest make room."""
    max_file_mb: Annotated[float, Field(gt=0)] = 10.0
    """A file that would grow beyond this is closed, and another begun."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.rate and not self.directory:
            raise ValueError("capture.rate is set without capture.directory: say where the files may be written")
        if self.max_file_mb > self.max_mb:
            raise ValueError(f"max_file_mb ({self.max_file_mb:g}) is larger than max_mb ({self.max_mb:g})")
        return self


class Observe(Section):
    """How the endpoint can be watched."""

    metrics_host: str = "127.0.0.1"
    """Address of the page /metrics. It is not behind the front door: whoever reaches it can read it."""
    metrics_port: Annotated[int, Field(ge=0, le=65535)] = 0
    """0 takes a free one, which is printed at the start."""
    logs: Literal["text", "json"] = "text"
    """`text`: sentences for people; `json`: one object a line, for a log collector."""
    access_log: Literal["file", "stdout"] = "file"
    """One JSON object for each request: into a file of the endpoint's, two of 64 MB at most, or to the standard output,
    where a container's logs are collected."""
    otlp: Annotated[str, AfterValidator(_otlp)] | None = None
    """Base address of an OpenTelemetry collector (OTLP over HTTP), such as http://127.0.0.1:4318; no traces without."""
    trace_sample: Annotated[float, Field(ge=0, le=1)] = 0.01
    """Share of the requests that is traced, unless a caller's `traceparent` has decided already."""
    service: Annotated[str, Field(min_length=1)] = "slipway"
    """Name of the service in traces."""
    capture: Capture = Capture()
    """What is kept for retraining."""
