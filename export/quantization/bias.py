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

from export.quantization.products import Product, bias_of, drop_unused, ranks_of, replace_nodes, weights_of
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
        rounded = numpy_helper.to_array(new[f"{product.weight}:int8"]).astype(np.float32) * scale
        error = numpy_helper.to_array(exact[product.weight]) - rounded
        shift = seen[product.activation].mean @ error
        value = (numpy_helper.to_array(new[bias]) + shift).astype(np.float32)
        new[bias].CopyFrom(numpy_helper.from_array(value, bias))
        corrected += 1
    return corrected


def round_biases(quantized: Any, original: Any, found: Sequence[Product]) -> int:
    """Make the biases of products of matrices `[rows, inputs]` int32, as ONNX Runtime's kernel for these wants them.

    It turns such a MatMul and its Add into a Gemm at load, and a Gemm runs in int8 only if its bias is int32 in the
    scale of the product; else the weights become fp32 again. Products of higher rank take their bias in fp32, and those
    named in `found` that are fp32 are left alone. The rounding is by a millionth of the product's range.

    Returns how many biases were changed.
    """
    from onnx import helper, numpy_helper

    ranks = ranks_of(original)
    new = weights_of(quantized)
    pairs: dict[str, Any] = {}
    for product in found:
        bias = bias_of(original, product)
        if bias is None or ranks.get(product.activation) != 2 or f"{product.weight}:int8" not in new:
            continue
        scale = numpy_helper.to_array(new[f"{product.activation}:scale"])
        scale = scale * numpy_helper.to_array(new[f"{product.weight}:scale"])
        steps = np.rint(numpy_helper.to_array(new[bias]) / scale)
        if np.abs(steps).max() > np.iinfo(np.int32).max:
            continue
        names = [f"{bias}:int32", f"{bias}:scale", f"{bias}:zero"]
        values = [steps.astype(np.int32), scale.astype(np.float32), np.zeros(len(scale), dtype=np.int32)]
        quantized.graph.initializer.extend(
            numpy_helper.from_array(value, name) for name, value in zip(names, values, strict=True)
        )
        result = f"{bias}:dequantized"
        pairs[bias] = helper.make_node("DequantizeLinear", names, [result], name=f"{bias}:dequantize", axis=0)
    nodes: list[Any] = []
    for node in quantized.graph.node:
        for place, name in enumerate(node.input):
            if name in pairs:
                nodes.append(pairs[name])
                node.input[place] = f"{name}:dequantized"
        nodes.append(node)
    replace_nodes(quantized, nodes)
    drop_unused(quantized)
    return len(pairs)
