"""int8 for CPUs with VNNI-class instructions: weights per channel ahead of time, activations on the fly.

Dynamic quantization needs no calibration data and is accurate on transformers, whose activations have outliers that a
fixed range cuts off. Its prices: a pass over each activation to find its range (hidden behind the fourfold cheaper
product), and a range over the whole batch, which makes a row's answer depend on its neighbours; see
`slipway.predictor` for what is done about that. Static ranges would cure the second at the cost of accuracy.

Embeddings are quantized too: they are half of a small model's bytes and their rows are looked up, not multiplied.
"""

from pathlib import Path

from export.graph import quietly


def quantize_int8(model: Path, out: Path) -> Path:
    """Write the dynamically quantized form of the ONNX file `model` to `out`."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with quietly():
        quantize_dynamic(
            str(model),
            str(out),
            per_channel=True,
            weight_type=QuantType.QInt8,
            extra_options={
                # A product of two activations (queries × keys) gains nothing and loses accuracy.
                "MatMulConstBOnly": True,
                # Shape inference does not see through the fused nodes' own domain; everything there is fp32.
                "DefaultTensorType": onnx.TensorProto.FLOAT,
            },
        )
    return out
