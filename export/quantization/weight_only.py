"""Weights in 8 or 4 bits, activations in fp32: ONNX Runtime's `MatMulNBits`, blocks of 32 inputs with a scale each.

It is made for decoders of one token at a time, which wait for memory; an encoder's products wait for arithmetic,
which stays fp32 or is rounded to int8 block by block inside the kernel. So these are rows of a comparison and for the
smallest file: on MiniLM at 32×32, one thread, either ran at 0.9 times the speed of fp32 on ONNX Runtime and at that
of fp32 on OpenVINO; agreement was 99.8 % in 8 bits (24 MB) and 94.6 % in 4 bits, embeddings included (14 MB). The
operator is ONNX Runtime's own domain (OpenVINO's reader knows it too, other engines don't). ONNX Runtime's
`MatMulNBitsQuantizer` writes the same; it needs two more packages and a model whose weights fit its layout.
"""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from export.quantization.embeddings import compress_tables
from export.quantization.products import FloatArray, drop_unused, load_graph, products, replace_nodes, weights_of
from export.quantization.ranges import Batch

Bits = Literal[4, 8]

BLOCK = 32


def quantize_4(
    model: Path,
    out: Path,
    calibration: Sequence[Batch] = (),  # noqa: ARG001
    *,
    keep: Collection[str] = (),
) -> Path:
    """Write `model` with 4-bit weights and embeddings to `out`; `calibration` isn't used."""
    return _quantize(model, out, keep, 4)


def quantize_8(
    model: Path,
    out: Path,
    calibration: Sequence[Batch] = (),  # noqa: ARG001
    *,
    keep: Collection[str] = (),
) -> Path:
    """Write `model` with 8-bit weights and embeddings to `out`; `calibration` isn't used."""
    return _quantize(model, out, keep, 8)


def _quantize(model: Path, out: Path, keep: Collection[str], bits: Bits) -> Path:
    import onnx
    from onnx import helper, numpy_helper

    proto = load_graph(model)
    weights = weights_of(proto)
    wanted = {product.node: product for product in products(proto, keep)}
    stored: set[str] = set()
    nodes: list[Any] = []
    for node in proto.graph.node:
        product = wanted.get(node.name)
        if product is None:
            nodes.append(node)
            continue
        matrix = numpy_helper.to_array(weights[product.weight])
        packed, scales = pack(matrix.T, bits)
        names = [f"{product.weight}:{bits}", f"{product.weight}:{bits}:scale"]
        if names[0] not in stored:
            stored.add(names[0])
            proto.graph.initializer.append(numpy_helper.from_array(packed, names[0]))
            proto.graph.initializer.append(numpy_helper.from_array(scales, names[1]))
        nodes.append(
            helper.make_node(
                "MatMulNBits",
                [node.input[0], *names],
                list(node.output),
                name=node.name,
                domain="com.microsoft",
                K=matrix.shape[0],
                N=matrix.shape[1],
                bits=bits,
                block_size=BLOCK,
            )
        )
    replace_nodes(proto, nodes)
    drop_unused(proto)
    if not any(opset.domain == "com.microsoft" for opset in proto.opset_import):
        proto.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    compress_tables(proto, bits)
    onnx.save(proto, str(out))
    return out


def pack(matrix: FloatArray, bits: Bits) -> tuple[npt.NDArray[np.uint8], FloatArray]:
    """`matrix [outputs, inputs]` as `MatMulNBits` reads it.

    Returns bytes `[outputs, blocks, BLOCK × bits / 8]`, the low half of a byte first, and scales `[outputs × blocks]`;
    the zero point is the middle of the range.
    """
    outputs, inputs = matrix.shape
    blocks = -(-inputs // BLOCK)
    padded = np.zeros((outputs, blocks * BLOCK), dtype=np.float32)
    padded[:, :inputs] = matrix
    grouped = padded.reshape(outputs, blocks, BLOCK)
    middle = 1 << (bits - 1)
    peak = np.abs(grouped).max(-1, keepdims=True)
    scale = np.where(peak == 0, 1, peak / (middle - 1)).astype(np.float32)
    levels = (np.clip(np.rint(grouped / scale), -middle, middle - 1) + middle).astype(np.uint8)
    if bits == 4:
        levels = levels[..., 0::2] | (levels[..., 1::2] << 4)
    return levels, scale.reshape(-1)
