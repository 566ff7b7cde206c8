"""Bias correction (Nagel et al. 2019, arXiv:1906.04721, section 4.2): rounding weights should not shift a mean.

Rounded weights `Ŵ` move the mean of each output channel by `E[x] (Ŵ − W)`, and a shift adds up over layers where
noise would not. It is taken off the bias that follows, from the means that calibration saw; no pass of its own,
nothing at run time.

Only the weights' share is corrected. With that of clipped activations too (as NNCF's fast bias correction does) the
divergence from fp32 rose threefold on MiniLM with symmetric ranges: what is clipped sits on special tokens, and a
mean over all tokens is wrong for the one that the head reads. With ranges that clip nothing the two are nearly the
same, and the gain is small (a tenth of the divergence or none): it costs nothing.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from export.quantization.products import Product, bias_of, weights_of
from export.quantization.ranges import Activation


def correct_biases(quantized: Any, original: Any, found: Sequence[Product], seen: Mapping[str, Activation]) -> int:
    """Correct in place the biases of `quantized`, which `export.quantization.qdq.insert` made of `original`.

    Returns how many of the products had a bias of their own to correct.
    """
    from onnx import numpy_helper

    exact, new = weights_of(original), weights_of(quantized)
    corrected = 0
    for product in found:
        bias = bias_of(original, product)
        if bias is None:
            continue
        scale = numpy_helper.to_array(new[f"{product.weight}:scale"])
        scale = scale[:, None] if product.transposed else scale
        rounded = numpy_helper.to_array(new[f"{product.weight}:int8"]).astype(np.float32) * scale
        error = numpy_helper.to_array(exact[product.weight]) - rounded
        shift = seen[product.activation].mean @ (error.T if product.transposed else error)
        value = (numpy_helper.to_array(new[bias]) + shift).astype(np.float32)
        new[bias].CopyFrom(numpy_helper.from_array(value, bias))
        corrected += 1
    return corrected
