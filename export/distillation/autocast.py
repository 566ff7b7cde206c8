"""bf16 where the processor multiplies it natively, fp32 elsewhere.

Where it is native (AVX512-BF16, AMX, Ampere and later) a training step takes 0.4 of its time in fp32; elsewhere it is
emulated and slower. Weights and optimizer stay fp32, only products are rounded. Logits that a gate compares are never
computed under it: bf16 keeps 8 bits, about as many as the int8 models that are held against them.
"""

from contextlib import AbstractContextManager
from typing import Any, Literal

Precision = Literal["auto", "bf16", "fp32"]


def native_bf16(device: Any) -> bool:
    """Whether `device` (a `torch.device`) multiplies bf16 in hardware."""
    import torch

    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def resolve(precision: Precision, device: Any) -> Literal["bf16", "fp32"]:
    """What `precision` means on `device`."""
    if precision == "auto":
        return "bf16" if native_bf16(device) else "fp32"
    return precision


def autocast(precision: Precision, device: Any) -> AbstractContextManager[Any]:
    """A context in which products run in `precision`; operations that need the range stay fp32."""
    import torch

    context: AbstractContextManager[Any] = torch.autocast(
        device.type, dtype=torch.bfloat16, enabled=resolve(precision, device) == "bf16"
    )
    return context
