from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest

from export.quantization import QUANTIZERS
from export.quantization.products import load_graph, products, weighted
from slipway.bundle import EngineName, Target
from slipway.engines.openvino import compile_model
from slipway.errors import ExportError
from tests.export.tiny_encoders import Batch, distance, logits, texts, write_encoder

pytestmark = pytest.mark.integration

CALIBRATED = [name for name, quantizer in QUANTIZERS.items() if quantizer.needs_calibration]
ON_BOTH = ["fp32", "int8-dynamic", "int8-static", "int8-static-e4", "int8-nncf", "int8-mixed"]

# Of the spread of the logits between texts, on a random model whose layers amplify noise.
TOLERANCE = {"fp32": 1e-3, "fp16": 0.02, "w8": 0.05, "w4": 0.6, "int8-static-e4": 0.6}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_encoder(tmp_path_factory.mktemp("encoder") / "model.onnx")


@pytest.fixture(scope="module")
def calibration() -> list[Batch]:
    return [texts([4, 7, 8], 1), texts([30, 25, 31, 12], 2), texts([1], 3), texts([24] * 32, 4)]


@pytest.fixture(scope="module")
def quantized(model: Path, calibration: list[Batch], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("quantized")
    return {
        name: quantizer.quantize(model, folder / f"{name}.onnx", calibration) for name, quantizer in QUANTIZERS.items()
    }


@pytest.mark.parametrize("name", QUANTIZERS)
def test_logits_stay_near_those_of_fp32(quantized: dict[str, Path], model: Path, name: str) -> None:
    assert distance(quantized[name], model) < TOLERANCE.get(name, 0.25)


@pytest.mark.parametrize("name", ON_BOTH)
def test_the_same_file_runs_on_both_engines(quantized: dict[str, Path], model: Path, name: str) -> None:
    assert distance(quantized[name], model, "openvino") < TOLERANCE.get(name, 0.25)


@pytest.mark.parametrize("name", ON_BOTH)
def test_files_for_both_engines_have_standard_operators_only(quantized: dict[str, Path], name: str) -> None:
    domains = {node.domain for node in onnx.load(str(quantized[name])).graph.node}
    assert domains <= {"", "ai.onnx"}


@pytest.mark.parametrize(
    ("name", "engine"),
    [
        (name, engine)
        for name, quantizer in QUANTIZERS.items()
        if quantizer.batch_invariant and quantizer.target == "cpu"
        for engine in quantizer.engines
    ],
)
def test_a_text_alone_has_the_logits_it_has_beside_longer_ones(
    quantized: dict[str, Path], name: str, engine: EngineName
) -> None:
    batch = texts([6, 30, 11, 3], seed=7)
    together = logits(quantized[name], batch, engine)
    for row, length in enumerate(batch["attention_mask"].sum(1)):
        alone = {key: values[row : row + 1, :length] for key, values in batch.items()}
        np.testing.assert_allclose(logits(quantized[name], alone, engine)[0], together[row], atol=_one_step(name))


def _one_step(name: str) -> float:
    """fp32 sums in another order can round an activation to the next of 256 levels."""
    return 1e-4 if QUANTIZERS[name].precision == "fp32" else 0.1


def test_dynamic_ranges_depend_on_the_texts_beside(quantized: dict[str, Path]) -> None:
    batch = texts([6, 30, 11, 3], seed=7)
    alone = {key: values[:1, :6] for key, values in batch.items()}
    difference = np.abs(logits(quantized["int8-dynamic"], batch)[0] - logits(quantized["int8-dynamic"], alone)[0])
    assert difference.max() > 1e-3
    assert not QUANTIZERS["int8-dynamic"].batch_invariant


@pytest.mark.parametrize("name", CALIBRATED)
@pytest.mark.parametrize("nothing", [[], [texts([3])] * 0, [{"input_ids": np.zeros((0, 4), dtype=np.int64)}]])
def test_without_calibration_texts_it_says_so_and_writes_nothing(
    name: str, nothing: list[Batch], model: Path, tmp_path: Path
) -> None:
    with pytest.raises(ExportError, match="no calibration texts") as caught:
        QUANTIZERS[name].quantize(model, tmp_path / "out.onnx", nothing)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_model_is_an_error_of_one_line(tmp_path: Path, calibration: list[Batch]) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"not a model")
    with pytest.raises(ExportError, match="not an ONNX model"):
        QUANTIZERS["int8-static"].quantize(tmp_path / "broken.onnx", tmp_path / "out.onnx", calibration)


def test_products_of_activations_and_the_head_are_left_alone(model: Path) -> None:
    proto = load_graph(model)
    chosen = products(proto)
    assert len(chosen) == len(weighted(proto)) - 1
    assert len(chosen) == 2 * 6 + 1  # q, k, v, attention output, up, down of two layers; the pooler
    head = ({product.node for product in weighted(proto)} - {product.node for product in chosen}).pop()
    assert "classifier" in head


@pytest.mark.parametrize("name", ["int8-dynamic", "int8-static", "int8-nncf", "int8-tensorrt", "w4", "fp16"])
def test_a_node_to_keep_keeps_its_fp32_weights(
    name: str, model: Path, calibration: list[Batch], tmp_path: Path
) -> None:
    product = products(load_graph(model))[3]
    out = QUANTIZERS[name].quantize(model, tmp_path / "out.onnx", calibration, keep={product.node})
    kept = {tensor.name: tensor.data_type for tensor in onnx.load(str(out)).graph.initializer}
    assert kept[product.weight] == onnx.TensorProto.FLOAT


def test_a_node_to_keep_that_is_not_there_is_named(model: Path, calibration: list[Batch], tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="no node 'encoder/nowhere'"):
        QUANTIZERS["int8-static"].quantize(model, tmp_path / "o.onnx", calibration, keep={"encoder/nowhere"})


def test_openvino_runs_every_static_product_in_int8(quantized: dict[str, Path]) -> None:
    compiled = compile_model(
        quantized["int8-static"], Target(model="m", precision="int8", engine="openvino"), threads=1
    )
    precisions = Counter(
        (operation.get_rt_info()["layerType"].astype(str), operation.get_rt_info()["runtimePrecision"].astype(str))
        for operation in compiled.get_runtime_model().get_ops()
    )
    products_in_int8 = sum(precisions["FullyConnected", precision] for precision in ("u8", "i8"))
    assert products_in_int8 == 13
    assert sum(count for (kind, _), count in precisions.items() if kind == "FullyConnected") == 14  # and the head


def test_onnxruntime_runs_every_static_product_in_int8(quantized: dict[str, Path], tmp_path: Path) -> None:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(str(quantized["int8-static"]), options, ["CPUExecutionProvider"])
    operators = Counter(node.op_type for node in onnx.load(str(tmp_path / "optimized.onnx")).graph.node)
    assert operators["MatMulIntegerToFloat"] + operators["QGemm"] == 13


def test_int8_files_are_a_quarter_of_fp32(quantized: dict[str, Path], model: Path) -> None:
    def weights(file: Path) -> int:
        return sum(len(tensor.raw_data) for tensor in onnx.load(str(file)).graph.initializer)

    for name in ("int8-dynamic", "int8-static", "int8-nncf"):
        assert weights(quantized[name]) < 0.3 * weights(model)
    assert weights(quantized["int8-static-e4"]) < 0.2 * weights(model)


def test_nncf_reports_to_no_one(quantized: dict[str, Path]) -> None:
    from nncf.telemetry import decorator, wrapper

    assert quantized["int8-nncf"].exists()
    assert isinstance(decorator.telemetry, wrapper.NNCFTelemetryStub)


def test_nncf_says_nothing(
    model: Path, calibration: list[Batch], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    QUANTIZERS["int8-nncf"].quantize(model, tmp_path / "out.onnx", calibration)
    said = capfd.readouterr()
    assert said.out == ""
    assert said.err == ""


def test_a_table_that_is_rounded_to_4_bits_already_is_kept_as_it_is() -> None:
    from export.quantization.embeddings import rounded4

    table = np.random.default_rng(0).normal(size=(4096, 128)).astype(np.float32)
    once = rounded4(table)
    assert 0 < np.abs(once - table).max() < 1.0
    np.testing.assert_allclose(rounded4(once), once, atol=1e-6)
