"""Dynamic int8 (ONNX Runtime): weights per channel ahead of time, the range of an activation found at every call.

It needs no texts, and its range always fits, whatever the outliers. The prices: a pass over each activation to find
its range, hidden by ONNX Runtime behind the product; a range over the whole batch, so that a row's answer depends on
its neighbours and on padding (`slipway.predictor` runs such a model row by row); and OpenVINO, which runs the file
but finds no int8 kernel in it, at a third of its own fp32 speed. Weights in uint8 and `reduce_range` were slower or
worse.
"""

from collections.abc import Collection, Sequence
from pathlib import Path

from export.graph import quietly
from export.quantization.embeddings import compress_tables
from export.quantization.products import load_graph, products
from export.quantization.ranges import Batch


def quantize(
    model: Path,
    out: Path,
    calibration: Sequence[Batch] = (),  # noqa: ARG001
    *,
    keep: Collection[str] = (),
) -> Path:
    """Write the dynamically quantized form of the ONNX file `model` to `out`; `calibration` isn't used.

    Raises `ExportError` if `keep` names a node that isn't there.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    proto = load_graph(model)
    chosen = [product.node for product in products(proto, keep)]
    compress_tables(proto, 8)
    with quietly():
        quantize_dynamic(
            proto,
            str(out),
            op_types_to_quantize=["MatMul"],
            nodes_to_quantize=chosen,
            per_channel=True,
            reduce_range=False,
            weight_type=QuantType.QInt8,
            extra_options={
                "MatMulConstBOnly": True,
                # Shape inference doesn't see through every graph; whatever it misses is fp32.
                "DefaultTensorType": onnx.TensorProto.FLOAT,
            },
        )
    return out
