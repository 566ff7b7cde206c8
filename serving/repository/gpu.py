"""What a GPU's configuration has beyond a CPU's: instances on GPUs, and TensorRT through ONNX Runtime.

TensorRT compiles an engine for a range of shapes; without one it would compile anew, for minutes, whenever a request
brings a shape that it has not seen. The range is what this model can be asked: from one row of one token to a full
batch of the longest texts; it is tuned for half of both. Engines are kept in a cache directory, which should outlive
the container. What TensorRT can't run, CUDA does.

The names of the parameters are those of Triton's onnxruntime backend (`gpu_execution_accelerator`) and, where the
model runs in our own process (fused), of ONNX Runtime's TensorRT execution provider.
"""

import json
from typing import Any

from serving.protocol import MAX_ROWS
from serving.repository.plan import RepositorySpec
from slipway.bundle import BundleSpec

_PRECISION = {"fp32": "FP32", "fp16": "FP16", "int8": "INT8"}


def instance_group(schema: Any, spec: RepositorySpec) -> Any:
    """So many instances on every GPU that Triton sees."""
    return schema.ModelInstanceGroup(count=spec.gpu.instances, kind=schema.ModelInstanceGroup.KIND_GPU)


def accelerators(schema: Any, spec: RepositorySpec, bundle: BundleSpec) -> Any:
    """The `optimization` of an encoder: TensorRT first, CUDA for the rest."""
    target = bundle.targets["gpu"]
    tensorrt = {
        "precision_mode": _PRECISION[target.precision],
        "max_workspace_size_bytes": str(spec.gpu.workspace_mb << 20),
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": spec.gpu.engine_cache,
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": spec.gpu.engine_cache,
        **_profiles(spec, bundle),
    }
    policy = schema.ModelOptimizationPolicy
    accelerator = policy.ExecutionAccelerators.Accelerator
    return policy(
        execution_accelerators=policy.ExecutionAccelerators(
            gpu_execution_accelerator=[
                accelerator(name="tensorrt", parameters=tensorrt),
                accelerator(name="cuda"),
            ]
        )
    )


def execution_providers(spec: RepositorySpec, bundle: BundleSpec) -> str:
    """The same for a session of our own, as JSON."""
    target = bundle.targets["gpu"]
    tensorrt = {
        "trt_fp16_enable": target.precision == "fp16",
        "trt_int8_enable": target.precision == "int8",
        "trt_max_workspace_size": spec.gpu.workspace_mb << 20,
        "trt_engine_cache_enable": True,
        "trt_engine_cache_path": spec.gpu.engine_cache,
        "trt_timing_cache_enable": True,
        "trt_timing_cache_path": spec.gpu.engine_cache,
        **_profiles(spec, bundle),
    }
    return json.dumps([["TensorrtExecutionProvider", tensorrt], ["CUDAExecutionProvider", {}]])


def warm_up(schema: Any, bundle: BundleSpec) -> Any:
    """One batch before the first request, so that no caller waits for an engine to be compiled or read."""
    tokens = bundle.tokenization.max_tokens
    inputs = {
        name: schema.ModelWarmup.Input(data_type=schema.TYPE_INT64, dims=[tokens], zero_data=True)
        for name in bundle.tokenization.inputs
    }
    return schema.ModelWarmup(name="longest text", batch_size=1, inputs=inputs)


def _profiles(spec: RepositorySpec, bundle: BundleSpec) -> dict[str, str]:
    longest, sizes = bundle.tokenization.max_tokens, spec.preferred_sizes.get("gpu") or [MAX_ROWS]
    usual = next((size for size in sizes if size >= MAX_ROWS // 2), sizes[-1])
    shapes = {"min": (1, 1), "opt": (usual, max(1, longest // 2)), "max": (MAX_ROWS, longest)}
    return {
        f"trt_profile_{which}_shapes": ",".join(f"{name}:{rows}x{tokens}" for name in bundle.tokenization.inputs)
        for which, (rows, tokens) in shapes.items()
    }
