"""Static int8 by NNCF, OpenVINO's own compressor, on the ONNX graph: SmoothQuant, fast bias correction, QDQ.

It knows what OpenVINO's kernels take: residual additions read int8 too, and products of activations where a pattern
allows. On MiniLM (500 dev texts) agreement with fp32 was 99.2 % and divergence 0.0006 (`static.py`: 99.6 % and
0.0004); 32×32 on one thread of a shared Zen 5 machine, so indicative: 955 sequences/s on OpenVINO, as `static.py`,
and 486 on ONNX Runtime (762), whose kernels for signed activations are slower. Calibration is one text at a time: 20
s for 128 texts (8 s for 256).

NNCF (and OpenVINO, which it imports) reports its use to a web service unless the package `openvino-telemetry` is
missing, and looks once, when it is first imported; so that package is hidden before, for the life of the process.
"""

import logging
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from export.graph import quietly
from export.quantization.embeddings import compress_tables
from export.quantization.products import load_graph, products, weighted
from export.quantization.ranges import Batch, require_texts
from slipway.errors import ExportError

TEXTS = 128
"""Calibration texts that are taken, at even steps: NNCF runs them one at a time."""


def quantize(model: Path, out: Path, calibration: Sequence[Batch], *, keep: Collection[str] = ()) -> Path:
    """Write NNCF's int8 form of the fp32 ONNX file `model` to `out`; nodes named in `keep` stay fp32.

    Raises `ExportError` if there are no calibration texts or NNCF can't take the graph.
    """
    import onnx

    require_texts(calibration)
    texts = [text for batch in calibration for text in _one_by_one(batch)]
    texts = texts[:: -(-len(texts) // TEXTS)]
    proto = load_graph(model)
    chosen = {product.node for product in products(proto, keep)}
    left = {product.node for product in weighted(proto)} - chosen
    with quietly():
        nncf = _silent_nncf()
        try:
            quantized = nncf.quantize(
                proto,
                nncf.Dataset(texts),
                model_type=nncf.ModelType.TRANSFORMER,
                subset_size=len(texts),
                fast_bias_correction=True,
                ignored_scope=nncf.IgnoredScope(names=sorted(left | set(keep))),
            )
        except Exception as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise ExportError(f"NNCF can't quantize {model}: {reason}") from error
    compress_tables(quantized, 8)
    onnx.save(quantized, str(out))
    return out


def _one_by_one(batch: Batch) -> Iterator[dict[str, Any]]:
    """The rows of `batch` as batches of one without their padding: NNCF's statistics don't know a mask."""
    for row in range(len(next(iter(batch.values()), ()))):
        real = batch["attention_mask"][row].astype(bool) if "attention_mask" in batch else slice(None)
        yield {name: values[row : row + 1, real] for name, values in batch.items()}


def _silent_nncf() -> Any:
    """The package, without its telemetry and its log."""
    import nncf
    from nncf.telemetry import decorator, wrapper

    nncf.set_log_level(logging.ERROR)
    if not isinstance(decorator.telemetry, wrapper.NNCFTelemetryStub):
        # NNCF or OpenVINO was imported before the package could be hidden.
        decorator.telemetry = wrapper.NNCFTelemetryStub()
    return nncf
