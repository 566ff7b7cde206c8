"""OpenVINO on CPUs.

Nothing is left to its hints, which look at the whole machine: threads are the target's, one stream, no pinning (an
instance knows nothing of the others and pins its workers to the same cores), no cache on disk. Streams, OpenVINO's own
instances, would share one copy of the weights, but need many requests in one process; Triton's instances are processes.

What a file has in fp32 is computed in fp32 unless the target's `precision_hint` says bf16. OpenVINO's own choice is
bf16 wherever the processor has it, so that the same bundle would answer differently on another machine. It makes an
fp32 file twice as fast (MiniLM, 32 × 32 tokens: 54 ms instead of 100) and an int8 one no faster.

On x86 processors without VNNI sums of int8 products are cut off at 16 bits, as in ONNX Runtime unless that is told
otherwise; here nothing tells it. Declined: `LP_TRANSFORMS_MODE` off, which computes in fp32 instead, but took a file of
NNCF's further from its fp32 model (0.35 of the spread of the logits; 0.13 with it on, 0.10 in ONNX Runtime).

A shape that differs from the last call's costs: every node is prepared anew, 0.5 ms for a model of 4 layers × 384 and
1 ms for 6 (0.6 and 1.3 ms of work at 1 × 32 tokens), and about 10 ms more when the shape was never seen (kernels are
compiled for it). Rounding token counts up (`Target.pad_to_multiple_of`) makes shapes few and repeats likely. Declined:
a compiled model for each rounded length, which won 20 % on single texts of mixed lengths and took 75 to 95 MB each.
"""

import functools
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from slipway.bundle import Target
from slipway.errors import ExportError

DEFAULTS: dict[str, Any] = {"pad_to_multiple_of": 16}
"""Fields of a target for a transformer on this engine, unless a measurement says otherwise."""


class OpenVinoSession:
    """A model in OpenVINO. Threads may share it, but run one after another: it has one request."""

    def __init__(self, model: Path, target: Target, threads: int) -> None:
        self._compiled = compile_model(model, target, threads)
        self.inputs = tuple(value.any_name for value in self._compiled.inputs)
        self._request = self._compiled.create_infer_request()
        self._turn = threading.Lock()

    def run(self, batch: Mapping[str, npt.NDArray[np.int64]]) -> npt.NDArray[np.float32]:
        """Logits `[batch, labels]`."""
        import openvino

        with self._turn:
            # The request reads the arrays where they are. Handing them to `infer` costs twice as much Python (40 µs).
            for number, name in enumerate(self.inputs):
                array = np.ascontiguousarray(batch[name])
                self._request.set_input_tensor(number, openvino.Tensor(array, shared_memory=True))
            self._request.infer(share_outputs=True)
            # The request's own output is overwritten by its next run.
            return np.array(self._request.get_output_tensor(0).data, dtype=np.float32)


@functools.cache
def runtime() -> Any:
    """The process's one OpenVINO, which never goes.

    Its plugin gives the thread that first compiles a model an alternate stack for signals (for AMX), and when it goes,
    back the one from before. With several, that may be one that went long ago: the next Ctrl-C ends Python by SIGSEGV.
    """
    import openvino

    return openvino.Core()


def compile_model(model: Path, target: Target, threads: int, **properties: Any) -> Any:
    """OpenVINO's own compiled model, with further `properties`; raises `ExportError` if it can't run the file."""
    core = runtime()
    settings = {
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": target.precision_hint,
        "ENABLE_CPU_PINNING": False,
    }
    try:
        return core.compile_model(str(model), "CPU", settings | properties)
    except RuntimeError as error:
        raise ExportError(f"OpenVINO can't run {model}: {_reason(error)}") from error


def _reason(error: RuntimeError) -> str:
    """The line that says something; the others are where in its source it was said."""
    lines = [line.strip() for line in str(error).splitlines()]
    telling = [line for line in lines if line and not line.startswith(("Exception from", "Check '"))]
    return telling[0] if telling else (lines or ["unknown"])[0]
