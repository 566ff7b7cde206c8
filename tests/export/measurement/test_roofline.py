"""Operations are counted right, shares add up, and peaks are those of the machine."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export.measurement import Shape, roofline
from export.measurement.breakdown import breakdown
from export.quantization import QUANTIZERS
from export.quantization.products import load_graph, products
from slipway.bundle import Target
from slipway.engines import defaults
from slipway.errors import ExportError

pytestmark = pytest.mark.integration

HIDDEN, LAYERS, INNER, LABELS = 32, 2, 64, 3


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ONNX file of a random BERT."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=100,
        hidden_size=HIDDEN,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        intermediate_size=INNER,
        num_labels=LABELS,
        attn_implementation="eager",
    )
    model = BertForSequenceClassification(config).eval()
    file = tmp_path_factory.mktemp("bert") / "model.onnx"
    ids = torch.ones((2, 7), dtype=torch.long)
    names = ["input_ids", "attention_mask"]
    axes = {name: {0: "batch", 1: "sequence"} for name in names} | {"logits": {0: "batch"}}
    torch.onnx.export(
        model, (ids, ids), file, dynamo=False, input_names=names, output_names=["logits"], dynamic_axes=axes
    )
    return file


@pytest.fixture(scope="module")
def static(bert: Path) -> Path:
    return quantized(bert, bert.with_name("static.onnx"), dynamic=False)


@pytest.fixture(scope="module")
def dynamic(bert: Path) -> Path:
    return quantized(bert, bert.with_name("dynamic.onnx"), dynamic=True)


def quantized(model: Path, out: Path, *, dynamic: bool) -> Path:
    from onnxruntime.quantization import CalibrationDataReader, quantize_dynamic, quantize_static

    class OneBatch(CalibrationDataReader):
        def __init__(self) -> None:
            self._batches = iter([ids(2, 9)])

        def get_next(self) -> Any:
            return next(self._batches, None)

    if dynamic:
        quantize_dynamic(model, out)
    else:
        quantize_static(model, out, OneBatch(), op_types_to_quantize=["MatMul", "Gemm"])
    return out


def ids(rows: int, tokens: int) -> dict[str, np.ndarray[Any, Any]]:
    numbers = np.random.default_rng(0).integers(1, 100, (rows, tokens))
    return {"input_ids": numbers, "attention_mask": np.ones_like(numbers)}


def attention(tokens: int) -> int:
    """Of queries × keys and probabilities × values."""
    return 2 * LAYERS * 2 * tokens * tokens * HIDDEN


def formula(tokens: int) -> int:
    """Two for each multiply-add: projections, feed-forward, queries × keys and × values; pooler and head on one row."""
    weights = 4 * HIDDEN * HIDDEN + 2 * HIDDEN * INNER
    layer = tokens * weights + 2 * tokens * tokens * HIDDEN
    return 2 * (LAYERS * layer + HIDDEN * HIDDEN + HIDDEN * LABELS)


@pytest.mark.parametrize("shape", [Shape(1, 2), Shape(1, 32), Shape(8, 32), Shape(3, 57)])
def test_operations_of_a_bert_equal_the_closed_formula(bert: Path, shape: Shape) -> None:
    assert roofline.operations(bert, shape) == {"fp32": formula(shape.tokens)}


def test_quantization_does_not_change_how_many_operations_there_are(static: Path, dynamic: Path) -> None:
    assert sum(roofline.operations(static, Shape(2, 16)).values()) == formula(16)
    assert sum(roofline.operations(dynamic, Shape(2, 16)).values()) == formula(16)


def test_products_of_activations_that_stay_fp32_count_as_such(dynamic: Path) -> None:
    found = roofline.operations(dynamic, Shape(2, 16))
    assert found == {"int8": formula(16) - attention(16), "fp32": attention(16)}


def test_a_quantized_product_counts_as_int8_and_one_that_was_kept_does_not(bert: Path, tmp_path: Path) -> None:
    kept = [product.node for product in products(load_graph(bert), ())][:2]
    quantize = QUANTIZERS["int8-static"].quantize
    all_of_them = quantize(bert, tmp_path / "all.onnx", [ids(2, 9)])
    but_two = quantize(bert, tmp_path / "but-two.onnx", [ids(2, 9)], keep=kept)
    whole, mixed = (roofline.operations(model, Shape(2, 16)) for model in (all_of_them, but_two))
    assert sum(whole.values()) == sum(mixed.values()) == formula(16)
    assert whole["int8"] > mixed["int8"] > 0


def test_weights_alone_in_few_bits_leave_the_products_in_fp32(bert: Path, tmp_path: Path) -> None:
    model = QUANTIZERS["w8"].quantize(bert, tmp_path / "w8.onnx", [ids(2, 9)])
    assert roofline.operations(model, Shape(2, 16)) == {"fp32": formula(16)}


def test_what_an_engine_is_told_to_compute_in_bf16_counts_as_that(bert: Path) -> None:
    assert roofline.operations(bert, Shape(1, 8), "bf16") == {"bf16": formula(8)}


def test_operations_of_a_broken_file_are_one_line(tmp_path: Path) -> None:
    broken = tmp_path / "model.onnx"
    broken.write_bytes(b"not a model")
    with pytest.raises(ExportError, match=r"can't run .*model\.onnx"):
        roofline.operations(broken, Shape(1, 8))


def test_a_share_is_what_was_reached_of_the_peak() -> None:
    peaks = roofline.Peaks(int8=1000, bf16=500, fp32=250, threads=1)
    assert roofline.share({"int8": 500_000_000}, 1000, peaks) == pytest.approx(0.5)
    # A millisecond is 0.2 ms of int8 and 0.4 ms of fp32 at their peaks.
    assert roofline.share({"int8": 200_000_000, "fp32": 100_000_000}, 1000, peaks) == pytest.approx(0.6)


@pytest.mark.slow
def test_peaks_are_those_of_the_machine_and_leave_pytorchs_threads_alone() -> None:
    import torch

    before = torch.get_num_threads()
    peaks = roofline.peaks(1)
    assert torch.get_num_threads() == before
    assert peaks.threads == 1
    assert min(peaks.int8, peaks.bf16, peaks.fp32) > 0
    if "vnni" in Path("/proc/cpuinfo").read_text(encoding="ascii"):
        assert peaks.int8 > peaks.fp32
    assert peaks.of("int8") == peaks.int8
    assert roofline.peaks(1) is peaks


@pytest.mark.parametrize(
    ("file", "engine"),
    [("bert", "onnxruntime"), ("bert", "openvino"), ("dynamic", "onnxruntime"), ("static", "openvino")],
)
def test_shares_of_a_run_sum_to_one_and_name_the_products(
    file: str, engine: Any, request: pytest.FixtureRequest
) -> None:
    target = Target(model="", precision="fp32", engine=engine, **defaults(engine))
    shares = breakdown(request.getfixturevalue(file), target, ids(16, 64), runs=5)
    assert sum(shares.values()) == pytest.approx(1)
    assert all(value >= 0 for value in shares.values())
    assert shares["products"] > 0
    assert shares["normalization"] > 0
    assert shares["attention"] > 0
    assert list(shares.values()) == sorted(shares.values(), reverse=True)


def test_profiling_leaves_no_file_behind(bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import tempfile

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    breakdown(bert, Target(model="", precision="fp32"), ids(1, 8), runs=2)
    roofline.operations(bert, Shape(1, 8))
    assert list(tmp_path.iterdir()) == []
