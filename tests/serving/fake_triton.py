"""The few names of Triton's Python backend that the model uses, without Triton."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from tests.serving.counting_triton import CountingTriton


@dataclass
class FakeTensor:
    label: str
    value: Any

    def name(self) -> str:
        return self.label

    def as_numpy(self) -> Any:
        return self.value


@dataclass
class FakeRequest:
    tensors: list[FakeTensor]
    outputs: list[str] = field(default_factory=list)
    params: dict[str, Any] = field(default_factory=dict)
    named: str = ""
    context: str | None = None
    """Of Triton's own span, where it traces."""
    timeout_us: int = 0
    cancelled: bool = False

    @classmethod
    def of(cls, *texts: str | bytes, outputs: Sequence[str] = (), **params: Any) -> "FakeRequest":
        return cls([FakeTensor("text", column(*texts))], list(outputs), params)

    def inputs(self) -> list[FakeTensor]:
        return self.tensors

    def requested_output_names(self) -> list[str]:
        return self.outputs

    def parameters(self) -> str:
        return json.dumps(self.params)

    def request_id(self) -> str:
        return self.named

    def timeout(self) -> int:
        return self.timeout_us

    def is_cancelled(self) -> bool:
        return self.cancelled

    def trace(self) -> "FakeTrace":
        return FakeTrace(self.context)


@dataclass
class FakeTrace:
    context: str | None

    def get_context(self) -> str | None:
        return self.context


@dataclass
class FakeError:
    message: str
    code: str

    INVALID_ARG = "INVALID_ARG"
    INTERNAL = "INTERNAL"
    UNAVAILABLE = "UNAVAILABLE"
    CANCELLED = "CANCELLED"


@dataclass
class FakeResponse:
    output_tensors: list[FakeTensor]
    error: FakeError | None = None

    @property
    def columns(self) -> dict[str, Any]:
        assert self.error is None, self.error
        return {tensor.label: tensor.value for tensor in self.output_tensors}


def column(*texts: str | bytes) -> np.ndarray[Any, Any]:
    values = [[text.encode() if isinstance(text, str) else text] for text in texts]
    return np.array(values, dtype=np.object_)


def install(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Put the fake where the model imports it from; returns what is logged."""
    logged: list[str] = []
    fake = ModuleType("triton_python_backend_utils")

    def named(request: FakeRequest, name: str) -> FakeTensor | None:
        return next((tensor for tensor in request.tensors if tensor.label == name), None)

    fake.__dict__.update(
        Tensor=FakeTensor,
        InferenceResponse=FakeResponse,
        TritonError=FakeError,
        MetricFamily=CountingTriton().MetricFamily,
        Logger=type("Logger", (), {"log_warn": staticmethod(logged.append)}),
        get_input_tensor_by_name=named,
    )
    monkeypatch.setitem(sys.modules, fake.__name__, fake)
    return logged
