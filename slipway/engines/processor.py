"""What the processor can't do right: add up int8 products.

x86 processors without VNNI (AVX2 alone, and AVX-512 before Cascade Lake) multiply unsigned by signed bytes and add
pairs into 16 bits, where 2 × 255 × 127 doesn't fit: the sum is cut off, and no engine says so. One product of 384
channels whose activations and weights fill their ranges was wrong in 9 % of its values, by up to a sixth of the
largest. ONNX Runtime and OpenVINO both do it unless told otherwise, so that a bundle that was measured on one machine
would answer differently on another. Both are told otherwise here, and answer alike everywhere. That costs nothing where
VNNI is.

Alternative: weights of 7 bits (`reduce_range`, NNCF's `overflow_fix`), which fit. They lose accuracy on all machines
for the sake of old ones.
"""

import functools
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")


@functools.cache
def cuts_off_int8_sums() -> bool:
    """Whether sums of int8 products are cut off at 16 bits here; of a machine that doesn't tell, no."""
    try:
        lines = _CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False
    # x86's line; other architectures have none of this name and add into 32 bits.
    flags = next((line.split(":", 1)[1].split() for line in lines if line.startswith("flags")), None)
    return flags is not None and not any("vnni" in flag for flag in flags)
