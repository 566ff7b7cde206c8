"""ONNX Runtime on CPUs.

Threads don't spin while idle: spinning wins a few percent alone and starves the tokenizer and the other instances on a
shared machine.

Graph optimizers that slow a model down can be switched off by name (`Target.disabled_optimizers`). Two of them do so
with transformers: SkipLayerNormFusion makes Add + LayerNormalization one node whose kernel is several times slower than
the two, and BiasGeluFusion a node that is no faster. With both off, MiniLM in dynamic int8 took 1.41 ms
instead of 1.84 for 1 × 32 tokens and 41 instead of 49 for 32 × 32 (one thread); in fp32 8 × 32 took 27 instead of 37.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from slipway.bundle import Target
from slipway.errors import ExportError, first_line

DEFAULTS: dict[str, Any] = {"disabled_optimizers": ["SkipLayerNormFusion", "BiasGeluFusion"]}
"""Fields of a target for a transformer on this engine, unless a measurement says otherwise."""


Provider = tuple[str, dict[str, Any]]
"""An execution provider of ONNX Runtime's and its options."""

_CPU: Provider = ("CPUExecutionProvider", {})

_WHOLE_SUMS = "session.x64quantprecision"
_CONVERTED_TWICE = "Attempt to replace the existing tensor"


class OnnxRuntimeSession:
    """A model in ONNX Runtime, on the CPU unless `providers` say otherwise. Threads may share it."""

    def __init__(self, model: Path, target: Target, threads: int, providers: Sequence[Provider] = ()) -> None:
        self._session = create(model, target, session_options(threads), providers)
        self.inputs = tuple(value.name for value in self._session.get_inputs())

    def run(self, batch: Mapping[str, npt.NDArray[np.int64]]) -> npt.NDArray[np.float32]:
        """Logits `[batch, labels]`."""
        logits: npt.NDArray[np.float32] = self._session.run(["logits"], {name: batch[name] for name in self.inputs})[0]
        return logits.astype(np.float32, copy=False)


def session_options(threads: int) -> Any:
    """Options of a session with `threads` threads that don't spin while idle."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # x86 processors without VNNI add pairs of products of bytes into 16 bits, where 2 x 255 x 127 does not fit: one
    # of 384 channels that fill their ranges was wrong in 9 % of its values, by up to a sixth of the largest. Unsigned
    # by unsigned bytes it is right, at 1.3 times the time; where VNNI is, nothing changes.
    options.add_session_config_entry(_WHOLE_SUMS, "1")
    options.log_severity_level = 4  # errors are raised; some are mended in `opened`
    return options


def opened(model: Path | bytes, options: Any, providers: Sequence[Provider] = (), disabled: Sequence[str] = ()) -> Any:
    """ONNX Runtime's own session of a file or of what one holds; raises whatever ONNX Runtime does."""
    import onnxruntime

    def session() -> Any:
        return onnxruntime.InferenceSession(
            model if isinstance(model, bytes) else str(model),
            options,
            providers=[*providers, _CPU],
            disabled_optimizers=list(disabled),
        )

    try:
        return session()
    # Its exceptions have no base of their own short of Exception.
    except Exception as error:
        if _CONVERTED_TWICE not in str(error):
            raise
        # Where whole sums take unsigned weights, it converts those that layers share (ALBERT's) once for each layer,
        # and fails. Sums are cut off there then; the gate has seen it, if the same kind of machine exported the model.
        options.add_session_config_entry(_WHOLE_SUMS, "0")
        return session()


def create(model: Path, target: Target, options: Any, providers: Sequence[Provider] = ()) -> Any:
    """ONNX Runtime's own session of `model`; raises `ExportError` if it can't run the file, or not where it should.

    ONNX Runtime would run on the CPU what a missing provider can't: a GPU's model at a hundredth of its speed.
    """
    import onnxruntime

    missing = sorted({name for name, _ in providers} - set(onnxruntime.get_available_providers()))
    if missing:
        raise ExportError(
            f"this ONNX Runtime has no {', '.join(missing)}, which {model.name} is to run on; install onnxruntime-gpu "
            "with the CUDA and TensorRT libraries that it names, or serve the cpu target."
        )
    try:
        return opened(model, options, providers, target.disabled_optimizers)
    except Exception as error:
        raise ExportError(f"ONNX Runtime can't run {model}: {first_line(error)}") from error
