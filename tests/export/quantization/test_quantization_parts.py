from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from export.quantization import half, mixed, tensorrt
from export.quantization.bias import correct_biases
from export.quantization.embeddings import compress_tables, quantize_tables
from export.quantization.products import FloatArray, bias_of, load_graph, products, weights_of
from export.quantization.qdq import insert, quantize_weights
from export.quantization.ranges import observe
from export.quantization.smooth import smooth
from export.quantization.static import calibrate
from export.quantization.weight_only import BLOCK, pack
from slipway.bundle import EngineName
from slipway.errors import ExportError
from tests.export.tiny_encoders import VOCABULARY, Batch, distance, logits, texts, write_encoder

pytestmark = pytest.mark.integration

ENGINES: list[EngineName] = ["onnxruntime", "openvino"]
TEXTS = [texts([20, 31, 9, 14] * 8, 1), texts([5, 6], 2)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_encoder(tmp_path_factory.mktemp("encoder") / "model.onnx")


@pytest.fixture(scope="module")
def with_outliers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_encoder(tmp_path_factory.mktemp("outliers") / "model.onnx", outlier=25)


def static(model: Path, out: Path, *, smoothing: bool, corrected: bool = False) -> Path:
    proto = load_graph(model)
    found = products(proto)
    seen = observe(proto, [product.activation for product in found], TEXTS)
    if smoothing and smooth(proto, found, seen):
        found = products(proto)
        seen = observe(proto, [product.activation for product in found], TEXTS)
    quantized = copy(proto)
    insert(quantized, found, seen)
    if corrected:
        assert correct_biases(quantized, proto, found, seen) == len(found)
    onnx.save(quantized, str(out))
    return out


def copy(proto: Any) -> Any:
    other = type(proto)()
    other.CopyFrom(proto)
    return other


def run(proto: Any, batch: Batch, output: str) -> FloatArray:
    """Some tensor of the graph."""
    import onnxruntime

    opened = copy(proto)
    opened.graph.output.append(helper.make_empty_tensor_value_info(output))
    session = onnxruntime.InferenceSession(opened.SerializeToString(), None, ["CPUExecutionProvider"])
    values: FloatArray = session.run([output], batch)[0]
    return values


def test_padding_and_the_shape_of_batches_leave_no_trace_in_the_ranges(model: Path) -> None:
    proto = load_graph(model)
    names = [product.activation for product in products(proto)]
    alone = [
        {name: values[row : row + 1, :length] for name, values in TEXTS[0].items()}
        for row, length in enumerate(TEXTS[0]["attention_mask"].sum(1))
    ]
    padded, bare = observe(proto, names, TEXTS[:1]), observe(proto, names, alone)
    for name in names:
        assert padded[name].rows == bare[name].rows
        for figure in ("low", "high", "mean", "power"):
            np.testing.assert_allclose(getattr(padded[name], figure), getattr(bare[name], figure), atol=1e-4)


def test_a_text_with_as_many_tokens_as_the_model_has_channels_is_one_like_others(model: Path) -> None:
    proto, full = load_graph(model), texts([64, 64], 1)
    seen = observe(proto, [product.activation for product in products(proto)], [full])
    for name, activation in seen.items():
        values = run(proto, full, name)
        np.testing.assert_allclose(activation.low, values.reshape(-1, values.shape[-1]).min(0), atol=1e-5)


def test_values_that_are_not_finite_are_an_error(model: Path) -> None:
    proto = load_graph(model)
    table = next(tensor for tensor in proto.graph.initializer if tensor.dims[:1] == [VOCABULARY])
    table.CopyFrom(numpy_helper.from_array(np.full(tuple(table.dims), np.nan, dtype=np.float32), table.name))
    with pytest.raises(ExportError, match="not finite"):
        observe(proto, [products(proto)[0].activation], TEXTS)


def test_smoothing_does_not_change_the_function(with_outliers: Path, tmp_path: Path) -> None:
    proto = load_graph(with_outliers)
    found = products(proto)
    assert smooth(proto, found, observe(proto, [product.activation for product in found], TEXTS))
    onnx.save(proto, str(tmp_path / "smooth.onnx"))
    assert distance(tmp_path / "smooth.onnx", with_outliers) < 1e-3


def test_smoothing_rescues_a_model_with_outliers(with_outliers: Path, tmp_path: Path) -> None:
    rough = distance(static(with_outliers, tmp_path / "rough.onnx", smoothing=False), with_outliers)
    fine = distance(static(with_outliers, tmp_path / "fine.onnx", smoothing=True), with_outliers)
    assert fine < 0.8 * rough


def test_a_norm_that_only_products_read_takes_the_scale_at_no_cost() -> None:
    proto = pre_norm()
    found = products(proto)
    seen = observe(proto, [product.activation for product in found], [{"x": np.eye(16, dtype=np.int64) * 3}])
    batch = {"x": np.arange(32).reshape(2, 16)}
    before = run(proto, batch, "logits")
    operators = [node.op_type for node in proto.graph.node]
    assert "normal" in smooth(proto, found, seen)
    assert [node.op_type for node in proto.graph.node] == operators
    np.testing.assert_allclose(run(proto, batch, "logits"), before, rtol=1e-4, atol=1e-3)


def pre_norm() -> Any:
    """x → layer norm with one huge gain → two products → head."""
    generator = np.random.default_rng(0)
    gain = np.ones(16, dtype=np.float32)
    gain[3] = 80
    values = {
        "gain": gain,
        "shift": generator.normal(size=16).astype(np.float32),
        "w1": generator.normal(size=(16, 8)).astype(np.float32),
        "w2": generator.normal(size=(16, 8)).astype(np.float32),
        "head": generator.normal(size=(8, 2)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Cast", ["x"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("LayerNormalization", ["float", "gain", "shift"], ["normal"]),
        helper.make_node("MatMul", ["normal", "w1"], ["a"], name="one"),
        helper.make_node("MatMul", ["normal", "w2"], ["b"], name="two"),
        helper.make_node("Mul", ["a", "b"], ["c"]),
        helper.make_node("MatMul", ["c", "head"], ["logits"], name="classifier"),
    ]
    graph = helper.make_graph(
        nodes,
        "pre-norm",
        [helper.make_tensor_value_info("x", TensorProto.INT64, ["rows", 16])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["rows", 2])],
        [numpy_helper.from_array(value, name) for name, value in values.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def test_bias_correction_takes_the_shift_off_a_mean(model: Path, tmp_path: Path) -> None:
    proto = load_graph(model)
    sums = [node.output[0] for node in proto.graph.node if node.op_type == "Add" and "query/Add" in node.name]
    exact = run(proto, TEXTS[0], sums[0]).mean((0, 1))
    shifts = []
    for corrected in (False, True):
        file = static(model, tmp_path / f"{corrected}.onnx", smoothing=False, corrected=corrected)
        shifts.append(np.abs(run(onnx.load(str(file)), TEXTS[0], sums[0]).mean((0, 1)) - exact).mean())
    assert shifts[1] < shifts[0]


@given(seed=st.integers(0, 1000), inputs=st.integers(1, 20), outputs=st.integers(1, 20))
@settings(max_examples=30, deadline=None)
def test_rounded_weights_are_within_half_a_step(seed: int, inputs: int, outputs: int) -> None:
    matrix = np.random.default_rng(seed).normal(size=(inputs, outputs)).astype(np.float32)
    integers, scale = quantize_weights(matrix)
    assert np.abs(integers * scale - matrix).max(0) == pytest.approx(np.zeros(outputs), abs=float(scale.max()) * 0.501)
    assert np.abs(integers).max() <= 127


@pytest.mark.parametrize("bits", [4, 8])
def test_packed_weights_multiply_as_the_operator_does(bits: Any) -> None:
    import onnxruntime

    generator = np.random.default_rng(bits)
    matrix = generator.normal(size=(24, 40)).astype(np.float32)  # 40 inputs are not a whole number of blocks
    packed, scales = pack(matrix, bits)
    graph = helper.make_graph(
        [
            helper.make_node(
                "MatMulNBits", ["x", "w", "s"], ["y"], domain="com.microsoft", K=40, N=24, bits=bits, block_size=BLOCK
            )
        ],
        "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [5, 40])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [5, 24])],
        [numpy_helper.from_array(packed, "w"), numpy_helper.from_array(scales, "s")],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    proto = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    session = onnxruntime.InferenceSession(proto.SerializeToString(), None, ["CPUExecutionProvider"])
    x = generator.normal(size=(5, 40)).astype(np.float32)
    error = session.run(None, {"x": x})[0] - x @ matrix.T
    assert np.sqrt(np.square(error).mean()) / np.std(x @ matrix.T) < (0.15 if bits == 4 else 0.01)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("bits", "largest"), [(8, 0.05), (4, 0.5)])
def test_compressed_embeddings_give_nearly_the_same_answers(
    bits: Any, largest: float, engine: EngineName, model: Path, tmp_path: Path
) -> None:
    assert distance(quantize_tables(model, tmp_path / "small.onnx", bits), model, engine) < largest


def test_4_bit_embeddings_take_half_a_byte_a_weight_and_a_scale_for_64(model: Path, tmp_path: Path) -> None:
    small = onnx.load(str(quantize_tables(model, tmp_path / "small.onnx", 4)))
    words = [tensor for tensor in small.graph.initializer if tensor.dims[:1] == [VOCABULARY]]
    assert sum(len(tensor.raw_data) for tensor in words) == VOCABULARY * (64 // 2 + 4)


@pytest.mark.parametrize("bits", [4, 8])
def test_onnxruntime_does_not_unfold_the_table_when_it_loads_the_file(bits: Any, model: Path, tmp_path: Path) -> None:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 3
    small = quantize_tables(model, tmp_path / "small.onnx", bits)
    onnxruntime.InferenceSession(str(small), options, ["CPUExecutionProvider"])
    tables = [
        tensor.data_type
        for tensor in onnx.load(str(tmp_path / "optimized.onnx")).graph.initializer
        if tensor.dims[:1] == [VOCABULARY] and np.prod(tensor.dims) >= VOCABULARY * 32
    ]
    assert tables == [TensorProto.UINT8 if bits == 4 else TensorProto.INT8]


def test_openvino_does_not_unfold_the_table_when_it_compiles_the_file(model: Path, tmp_path: Path) -> None:
    from slipway.bundle import Target
    from slipway.engines.openvino import compile_model

    for bits in (4, 8):
        small = quantize_tables(model, tmp_path / f"{bits}.onnx", bits)
        compiled = compile_model(small, Target(model="m", precision="int8", engine="openvino"), threads=1)
        tables = [
            operation.get_rt_info()["outputPrecisions"].astype(str)
            for operation in compiled.get_runtime_model().get_ops()
            if operation.get_rt_info()["layerType"].astype(str) == "Const"
            and operation.get_output_partial_shape(0).is_static
            and operation.get_output_shape(0)[:1] == [VOCABULARY]
            and np.prod(operation.get_output_shape(0)) >= VOCABULARY * 32
        ]
        assert tables == ["u8" if bits == 4 else "i8"]


def test_a_sliced_table_of_positions_is_compressed_too() -> None:
    table = np.random.default_rng(0).normal(size=(1, 64, 16)).astype(np.float32)
    constants = {"table": table, "start": np.array([0]), "axis": np.array([1])}
    graph = helper.make_graph(
        [helper.make_node("Slice", ["table", "start", "end", "axis"], ["y"])],
        "positions",
        [helper.make_tensor_value_info("end", TensorProto.INT64, [1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, "tokens", 16])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    assert compress_tables(proto, 8) == 1
    import onnxruntime

    session = onnxruntime.InferenceSession(proto.SerializeToString(), None, ["CPUExecutionProvider"])
    np.testing.assert_allclose(session.run(None, {"end": np.array([7])})[0], table[:, :7], atol=0.02)
    assert {
        tensor.data_type for tensor in proto.graph.initializer if len(tensor.dims) == 3 and tensor.dims[2] == 16
    } == {TensorProto.INT8}


def test_the_group_that_hurts_is_found(model: Path) -> None:
    calibrated = calibrate(model, TEXTS)
    victim = calibrated.found[5]  # the second half of the first layer's feed-forward block
    calibrated.seen[victim.activation].high[:] = 1e-3  # its range is useless now
    calibrated.seen[victim.activation].low[:] = -1e-3
    ranking = mixed.rank(calibrated, TEXTS)
    assert ranking.groups[0].nodes == (victim.node,)
    assert ranking.first(1) == {victim.node}
    assert ranking.groups[0].divergence < 0.5 * ranking.divergence


def test_products_of_one_activation_stay_together(model: Path) -> None:
    keep = mixed.choose_keep(model, TEXTS, count=9)
    assert len(keep) == 13  # of two layers: queries, keys and values as one group, three more; the pooler
    assert mixed.choose_keep(model, TEXTS, count=0) == set()


def test_mixed_precision_halves_the_divergence(model: Path, tmp_path: Path) -> None:
    batch = TEXTS[0]
    exact = logits(model, batch)
    whole = calibrate(model, TEXTS).quantized()
    onnx.save(whole, str(tmp_path / "whole.onnx"))
    mixed.quantize(model, tmp_path / "mixed.onnx", TEXTS)
    left = mixed.divergence(exact, logits(tmp_path / "mixed.onnx", batch))
    assert left < 0.7 * mixed.divergence(exact, logits(tmp_path / "whole.onnx", batch))


def test_fp16_survives_sums_beyond_its_range_before_a_norm(tmp_path: Path) -> None:
    exact = write_huge_residual(tmp_path / "huge.onnx")
    answers = logits(half.quantize(exact, tmp_path / "half.onnx", TEXTS), TEXTS[0])
    reference = logits(exact, TEXTS[0])
    assert np.abs(answers - reference).max() < 0.05 * reference.std()
    assert not overflowing(tmp_path / "half.onnx")


def test_fp16_throughout_would_overflow(tmp_path: Path) -> None:
    from onnxruntime.transformers.float16 import convert_float_to_float16

    proto = load_graph(write_huge_residual(tmp_path / "huge.onnx"))
    onnx.save(convert_float_to_float16(proto, keep_io_types=True), str(tmp_path / "naive.onnx"))
    assert overflowing(tmp_path / "naive.onnx")


def test_a_product_that_overflows_on_the_texts_stays_fp32(tmp_path: Path) -> None:
    exact = write_huge_residual(tmp_path / "huge.onnx", part="weight")
    half.quantize(exact, tmp_path / "blind.onnx")
    half.quantize(exact, tmp_path / "half.onnx", TEXTS)
    assert overflowing(tmp_path / "blind.onnx")
    assert not overflowing(tmp_path / "half.onnx")


def overflowing(model: Path) -> list[str]:
    """Names of fp16 tensors that are not finite somewhere. As outputs they are really written in fp16."""
    import onnxruntime

    proto = onnx.shape_inference.infer_shapes(onnx.load(str(model)))
    values = [value for value in proto.graph.value_info if value.type.tensor_type.elem_type == TensorProto.FLOAT16]
    proto.graph.output.extend(values)
    session = onnxruntime.InferenceSession(proto.SerializeToString(), None, ["CPUExecutionProvider"])
    names = [value.name for value in values]
    assert len(names) > 20
    results = session.run(names, TEXTS[0])
    return [name for name, result in zip(names, results, strict=True) if not np.isfinite(result).all()]


def write_huge_residual(out: Path, part: str = "bias") -> Path:
    """The encoder with sums of some 10⁵ before the last layer's second norm, which makes all well.

    With part "bias" both terms of the residual sum are within fp16 and only the sum is not; with "weight" a product is
    not.
    """
    proto = load_graph(write_encoder(out))
    up, down = products(proto)[-3:-1]
    weights = weights_of(proto)
    norm = next(node for node in proto.graph.node if up.activation in node.output)
    for name in [down.weight] if part == "weight" else [bias_of(proto, down), norm.input[2]]:
        value = numpy_helper.to_array(weights[name or ""]).copy()
        value[..., :8] = 50_000
        weights[name or ""].CopyFrom(numpy_helper.from_array(value, name))
    value = numpy_helper.to_array(weights[up.weight]).copy()
    value[:8] = 0  # the products that read the norm see nothing of it
    weights[up.weight].CopyFrom(numpy_helper.from_array(value, up.weight))
    onnx.save(proto, str(out))
    return out


def test_fp16_has_half_the_bytes_and_fp32_inputs_and_logits(model: Path, tmp_path: Path) -> None:
    small = half.quantize(model, tmp_path / "half.onnx")
    assert small.stat().st_size < 0.55 * model.stat().st_size
    graph = onnx.load(str(small)).graph
    assert {value.type.tensor_type.elem_type for value in graph.output} == {TensorProto.FLOAT}
    assert {value.type.tensor_type.elem_type for value in graph.input} == {TensorProto.INT64}


def test_tensorrt_gets_symmetric_int8_and_a_pair_on_every_weight(model: Path, tmp_path: Path) -> None:
    proto = onnx.load(str(tensorrt.quantize(model, tmp_path / "gpu.onnx", TEXTS)))
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    writer = {name: node for node in proto.graph.node for name in node.output}
    quantizers = [node for node in proto.graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    for node in quantizers:
        assert weights[node.input[2]].dtype == np.int8
        assert not weights[node.input[2]].any()
    quantized = [
        node for node in proto.graph.node if node.op_type == "MatMul" and node.input[1].endswith(":dequantized")
    ]
    assert len(quantized) == 13
    for node in quantized:
        quantizer = writer[writer[node.input[1]].input[0]]
        assert quantizer.op_type == "QuantizeLinear"
        assert weights[quantizer.input[0]].dtype == np.float32
        assert weights[quantizer.input[1]].shape == weights[quantizer.input[0]].shape[1:]
