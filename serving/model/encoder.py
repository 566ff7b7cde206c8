"""The middle step of the `ensemble` layout where Triton's own backend is not at hand: tokens to logits.

A production Triton has the C++ backends `onnxruntime` and `openvino`. The one that comes in a wheel has not, so this
class is put where Triton looks for a backend written in Python, under the same names, and the same model folder
(`config.pbtxt` and `1/model.onnx`) runs on it. It takes from the configuration what the C++ backend takes, under the
names it has there, and what that one has no parameter for (`disabled_optimizers`).

Triton hands requests over that it would have batched, all of one shape; they are run as the one batch that they would
have been. That is right only for models whose answers don't depend on what is in the batch, and others are not rendered
as an ensemble.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from serving.model.settings import model_parameters
from serving.protocol import LOGITS
from slipway.bundle import Target
from slipway.engines import Session, open_session

ONNXRUNTIME_THREADS, OPENVINO_THREADS = "intra_op_thread_count", "INFERENCE_NUM_THREADS"
OPENVINO_BF16 = "HINT_BF16"
DISABLED_OPTIMIZERS = "disabled_optimizers"
MODEL_FILE = "model.onnx"


class TritonPythonModel:
    """Triton's Python backend makes one of these for each instance."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load `model.onnx`; raising keeps the model from being served."""
        import triton_python_backend_utils

        self._triton = triton_python_backend_utils
        config = json.loads(args["model_config"])
        file = config.get("default_model_filename") or MODEL_FILE
        target, threads = target_of(config["backend"], file, model_parameters(args))
        model = Path(args["model_repository"]) / args["model_version"] / file
        self._session: Session = open_session(model, target, threads=threads)

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """One response for each request; an error fails those that it was batched with."""
        triton = self._triton
        try:
            parts = [{tensor.name(): tensor.as_numpy() for tensor in request.inputs()} for request in requests]
            batch = {
                name: parts[0][name] if len(parts) == 1 else np.concatenate([part[name] for part in parts])
                for name in self._session.inputs
            }
            logits = self._session.run(batch)
        except Exception as error:
            failure = triton.TritonError(f"the encoder failed: {type(error).__name__}", triton.TritonError.INTERNAL)
            return [triton.InferenceResponse(output_tensors=[], error=failure) for _ in requests]
        responses, start = [], 0
        for part in parts:
            end = start + len(next(iter(part.values())))
            responses.append(triton.InferenceResponse(output_tensors=[triton.Tensor(LOGITS, logits[start:end])]))
            start = end
        return responses


def target_of(backend: str, file: str, parameters: dict[str, str]) -> tuple[Target, int]:
    """The bundle's target again, and the threads, from a model's configuration."""
    openvino = backend == "openvino"
    threads = int(parameters[OPENVINO_THREADS if openvino else ONNXRUNTIME_THREADS])
    disabled = parameters.get(DISABLED_OPTIMIZERS, "")
    return Target(
        model=file,
        precision="fp32",
        engine="openvino" if openvino else "onnxruntime",
        threads=threads,
        disabled_optimizers=disabled.split(";") if disabled else [],
        precision_hint="bf16" if parameters.get(OPENVINO_BF16) == "YES" else "f32",
    ), threads
