"""Static int8 by ONNX Runtime's own tool: minimum to maximum on training texts, nothing done about outliers.

It is here to be compared with: what `static.py` adds (smoothing, correction of biases) has to be worth it in every
search that tries both. Its calibrator keeps the outputs of all texts before it takes their extremes, which is why it is
given fewer.
"""

import tempfile
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from export.graph import quietly
from export.quantization.embeddings import compress_tables
from export.quantization.products import load_graph, products, weighted
from export.quantization.ranges import Batch, require_texts
from slipway.errors import ExportError, first_line

TEXTS = 128
"""Calibration texts that are taken, at even steps."""


def quantize(model: Path, out: Path, calibration: Sequence[Batch], *, keep: Collection[str] = ()) -> Path:
    """Write ONNX Runtime's static QDQ form of the fp32 ONNX file `model` to `out`; nodes in `keep` stay fp32.

    Raises `ExportError` if there are no calibration texts or the tool can't take the graph.
    """
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    require_texts(calibration)
    few = calibration[:: -(-len(calibration) // TEXTS)]

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        """The batches, one after another."""

        def __init__(self) -> None:
            self._batches: Iterator[Batch] = iter(few)

        def get_next(self) -> dict[str, Any] | None:
            batch = next(self._batches, None)
            return None if batch is None else dict(batch)

    proto = load_graph(model)
    chosen = {product.node for product in products(proto, keep)}
    left = {product.node for product in weighted(proto)} - chosen
    with quietly(), tempfile.TemporaryDirectory(dir=out.parent) as folder:
        plain, whole = Path(folder) / "plain.onnx", Path(folder) / "whole.onnx"
        onnx.save(proto, str(plain))
        try:
            quantize_static(
                str(plain),
                str(whole),
                Reader(),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=["MatMul"],
                nodes_to_exclude=sorted(left | set(keep)),
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                extra_options={"MatMulConstBOnly": True, "DefaultTensorType": onnx.TensorProto.FLOAT},
            )
        except OSError:
            raise
        except Exception as error:
            raise ExportError(f"ONNX Runtime can't quantize {model}: {first_line(error)}") from error
        quantized = onnx.load(str(whole))
    compress_tables(quantized, 8)
    onnx.save(quantized, str(out))
    return out
