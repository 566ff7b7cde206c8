"""What runs a model file: one file an engine, and a line in the registry.

Every engine takes the same ONNX file and gives the same answers (within 1e-4 in fp32). Which one a bundle's target
names was decided by measurement, since none is best at everything. Single texts of 32 tokens and batches of 32 × 32,
MiniLM (6 layers × 384), one thread of an EPYC with VNNI instructions, ms:

    file                       ONNX Runtime        OpenVINO
    fp32                        5.3 / 104          4.5 / 100
    int8, dynamic ranges        1.4 /  41          6.8 / 141
    int8, static ranges (QDQ)   7.8 /  66          1.6 /  34

So dynamic ranges belong to ONNX Runtime and static ones to OpenVINO: each is three to five times as slow with the
other's file, which is why a file never goes to an engine that it was not measured on.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from slipway.bundle import EngineName, Target
from slipway.engines import onnxruntime, openvino
from slipway.engines.onnxruntime import Provider

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float32]
Batch = Mapping[str, IntArray]


class Session(Protocol):
    """A model that is loaded and runs."""

    inputs: tuple[str, ...]
    """Names of what the model takes, in its order."""

    def run(self, batch: Batch) -> FloatArray:
        """Logits `[batch, labels]` of int64 inputs `[batch, tokens]`; what the model does not take is ignored."""
        ...


@dataclass(frozen=True)
class _Engine:
    session: Callable[[Path, Target, int], Session]
    defaults: dict[str, Any]


_ENGINES: dict[EngineName, _Engine] = {
    "onnxruntime": _Engine(onnxruntime.OnnxRuntimeSession, onnxruntime.DEFAULTS),
    "openvino": _Engine(openvino.OpenVinoSession, openvino.DEFAULTS),
}


def open_session(
    model: Path, target: Target, *, threads: int | None = None, providers: Sequence[Provider] = ()
) -> Session:
    """Load `model` into the target's engine; `threads` overrides the target's.

    `providers` are ONNX Runtime's ways to a GPU, with their options, best first; none is the CPU. Raises `ExportError`
    if the engine can't run the file, and `ModuleNotFoundError` if it isn't installed: an engine's package is imported
    when it is first used, so that a machine needs only the one that its bundle names.
    """
    if providers:
        return onnxruntime.OnnxRuntimeSession(model, target, threads or target.threads, providers)
    return _ENGINES[target.engine].session(model, target, threads or target.threads)


def defaults(engine: EngineName) -> dict[str, Any]:
    """Fields of a `Target` that suit a transformer on `engine`, by measurement (see the engine's file)."""
    return copy.deepcopy(_ENGINES[engine].defaults)


__all__ = ["Batch", "FloatArray", "IntArray", "Provider", "Session", "defaults", "open_session"]
