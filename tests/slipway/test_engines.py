"""Every engine runs the same file and gives the same answers; a target says how."""

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from slipway.bundle import TOKENIZER, Bundle, Target
from slipway.engines import Session, defaults, open_session
from slipway.errors import ExportError
from slipway.predictor import Encoder, Predictor
from tests.tiny_bundle import MAX_TOKENS, write_tiny_bundle

pytestmark = pytest.mark.integration

ENGINES: list[Any] = ["onnxruntime", "openvino"]
TEXTS = ["good", "the box is bad, the table is great. 好", "the " * 100, "👍", "", "it arrives monday " * 5] * 5
HIDDEN = 16


def target(engine: Any, **changes: Any) -> Target:
    return Target(model="model.onnx", precision="fp32", **{"engine": engine, **defaults(engine), **changes})


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_tiny_bundle(tmp_path_factory.mktemp("tiny") / "bundle")


@pytest.fixture(scope="module", params=[False, True], ids=["fp32", "int8"])
def attention(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One layer of masked attention over embeddings, its products in fp32 or with static int8 ranges."""
    return write_attention(tmp_path_factory.mktemp("attention") / "model.onnx", quantized=request.param)


def write_attention(file: Path, *, quantized: bool) -> Path:
    generator = np.random.default_rng(0)
    constants: dict[str, Any] = {
        "table": generator.standard_normal((100, HIDDEN)).astype(np.float32),
        "far": np.float32(-1e9),
        "one": np.float32(1),
        "axes": np.array([1], dtype=np.int64),
        "first": np.int64(0),
        "scale": np.float32(0.05),
        "zero": np.uint8(128),
        "weight_scale": np.float32(0.01),
    }
    nodes = [helper.make_node("Gather", ["table", "input_ids"], ["x"])]

    def product(left: str, name: str, columns: int) -> str:
        weight = generator.integers(-127, 127, (HIDDEN, columns)).astype(np.int8)
        if quantized:
            constants[f"{name}_w8"] = weight
            nodes.extend(
                [
                    helper.make_node("QuantizeLinear", [left, "scale", "zero"], [f"{name}_q"]),
                    helper.make_node("DequantizeLinear", [f"{name}_q", "scale", "zero"], [f"{name}_a"]),
                    helper.make_node("DequantizeLinear", [f"{name}_w8", "weight_scale"], [f"{name}_w"]),
                ]
            )
        else:
            constants[f"{name}_w"] = weight.astype(np.float32) * np.float32(0.01)
        nodes.append(helper.make_node("MatMul", [f"{name}_a" if quantized else left, f"{name}_w"], [name]))
        return name

    query, key, value = (product("x", name, HIDDEN) for name in ("query", "key", "value"))
    nodes += [
        helper.make_node("Transpose", [key], ["turned"], perm=[0, 2, 1]),
        helper.make_node("MatMul", [query, "turned"], ["raw"]),
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["one", "mask"], ["hidden"]),
        helper.make_node("Mul", ["hidden", "far"], ["bias"]),
        helper.make_node("Unsqueeze", ["bias", "axes"], ["bias3"]),
        helper.make_node("Add", ["raw", "bias3"], ["masked"]),
        helper.make_node("Softmax", ["masked"], ["weights"], axis=-1),
        helper.make_node("MatMul", ["weights", value], ["mixed"]),
        helper.make_node("Gather", ["mixed", "first"], ["row"], axis=1),
    ]
    product("row", "logits", 3)
    graph = helper.make_graph(
        nodes,
        "attention",
        [
            helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "sequence"])
            for name in ("input_ids", "attention_mask")
        ],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 3])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), file)
    return file


def batch(rows: int, tokens: int, *, padding: int = 0) -> dict[str, np.ndarray[Any, Any]]:
    ids = np.zeros((rows, tokens + padding), dtype=np.int64)
    ids[:, :tokens] = np.random.default_rng(rows + tokens).integers(1, 100, (rows, tokens))
    return {"input_ids": ids, "attention_mask": (ids > 0).astype(np.int64)}


def test_engines_agree_on_the_logits_of_one_file(attention: Path) -> None:
    rounded = any(node.op_type == "QuantizeLinear" for node in onnx.load(str(attention)).graph.node)
    if rounded and "vnni" not in Path("/proc/cpuinfo").read_text(encoding="utf-8"):
        pytest.skip("without VNNI, OpenVINO cuts off sums of int8 products")
    first, second = (open_session(attention, target(engine)) for engine in ENGINES)
    for rows, tokens in [(1, 4), (3, 9), (8, 32), (1, 4)]:
        np.testing.assert_allclose(first.run(batch(rows, tokens)), second.run(batch(rows, tokens)), atol=1e-4)


@pytest.mark.parametrize("engine", ENGINES)
def test_padding_does_not_change_an_answer(attention: Path, engine: Any) -> None:
    session = open_session(attention, target(engine))
    for padding in (1, 7, 16):
        padded = session.run(batch(4, 11, padding=padding))
        np.testing.assert_allclose(padded, session.run(batch(4, 11)), atol=1e-5)


@pytest.mark.parametrize("ranges", ["static", "dynamic"])
def test_onnxruntimes_sums_of_large_int8_products_are_whole_on_every_processor(tmp_path: Path, ranges: str) -> None:
    """In 16 bits, as processors without VNNI add up pairs of products, they would be cut off."""
    generator = np.random.default_rng(0)
    weights = generator.integers(100, 128, (256, 32)).astype(np.int8)
    rows = generator.integers(200, 256, (8, 256))
    rows[:, 0], rows[:, 1] = 0, 255  # so that dynamic ranges are those of a byte
    file = write_product(tmp_path / "model.onnx", weights, ranges)
    found = open_session(file, target("onnxruntime"), threads=1).run({"input_ids": rows})
    np.testing.assert_allclose(found, rows @ weights.astype(np.int64), rtol=1e-4)


@pytest.mark.parametrize("engine", ENGINES)
def test_products_may_share_their_weights(tmp_path: Path, engine: Any) -> None:
    generator = np.random.default_rng(0)
    weights = generator.integers(100, 128, (32, 32)).astype(np.int8)
    file = write_product(tmp_path / "model.onnx", weights, "static")
    model = onnx.load(file)
    again = [node for node in model.graph.node if node.op_type != "Cast"]
    for node in again:
        twin = model.graph.node.add()
        twin.CopyFrom(node)
        twin.output[0] += "2"
        for place, name in enumerate(node.input):
            twin.input[place] = {"q": "q2", "a": "a2", "b": "b2", "x": "half"}.get(name, name)
    model.graph.initializer.append(numpy_helper.from_array(np.float32(0.5), "a half"))
    for node in model.graph.node:
        if node.output[0].startswith("logits"):
            node.output[0] = {"logits": "whole", "logits2": "other"}[node.output[0]]
    halved = helper.make_node("Mul", ["x", "a half"], ["half"])
    nodes = [
        model.graph.node[0],
        halved,
        *model.graph.node[1:],
        helper.make_node("Add", ["whole", "other"], ["logits"]),
    ]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.save(model, file)
    rows = 2 * generator.integers(0, 50, (8, 32))  # sums that 16 bits hold
    found = open_session(file, target(engine), threads=1).run({"input_ids": rows})
    np.testing.assert_allclose(found, 1.5 * rows @ weights.astype(np.int64), rtol=1e-4)


def write_product(file: Path, weights: Any, ranges: str) -> Path:
    """`input_ids` by `weights`, in bytes."""
    constants = {"w": weights, "one": np.float32(1), "zero": np.uint8(0)}
    nodes = [helper.make_node("Cast", ["input_ids"], ["x"], to=TensorProto.FLOAT)]
    if ranges == "static":
        nodes += [
            helper.make_node("QuantizeLinear", ["x", "one", "zero"], ["q"]),
            helper.make_node("DequantizeLinear", ["q", "one", "zero"], ["a"]),
            helper.make_node("DequantizeLinear", ["w", "one"], ["b"]),
            helper.make_node("MatMul", ["a", "b"], ["logits"]),
        ]
    else:
        nodes += [
            helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "scale", "offset"]),
            helper.make_node("MatMulInteger", ["q", "w", "offset"], ["sums"]),
            helper.make_node("Cast", ["sums"], ["real"], to=TensorProto.FLOAT),
            helper.make_node("Mul", ["real", "scale"], ["logits"]),
        ]
    graph = helper.make_graph(
        nodes,
        "product",
        [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["rows", len(weights)])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["rows", weights.shape[1]])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), file)
    return file


@pytest.mark.parametrize("engine", ENGINES)
def test_an_answer_outlives_the_next_run(attention: Path, engine: Any) -> None:
    session = open_session(attention, target(engine))
    answer = session.run(batch(2, 5))
    kept = answer.copy()
    session.run(batch(2, 6))
    np.testing.assert_array_equal(answer, kept)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_session_can_be_shared_by_threads(attention: Path, engine: Any) -> None:
    session = open_session(attention, target(engine))
    batches = [batch(rows, tokens) for rows in (1, 3) for tokens in (5, 8, 20)]
    expected = [session.run(each) for each in batches]
    wrong: list[str] = []

    def ask() -> None:
        for _ in range(20):
            for each, answer in zip(batches, expected, strict=True):
                if not np.allclose(session.run(each), answer, atol=1e-5):
                    wrong.append("differs")

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize("engine", ENGINES)
def test_inputs_that_the_model_does_not_take_are_ignored(attention: Path, engine: Any) -> None:
    session: Session = open_session(attention, target(engine))
    assert session.inputs == ("input_ids", "attention_mask")
    given = batch(2, 5)
    np.testing.assert_array_equal(
        session.run({"token_type_ids": given["input_ids"], **dict(reversed(given.items()))}), session.run(given)
    )


@pytest.mark.parametrize("engine", ENGINES)
def test_arrays_that_are_not_contiguous_are_read_right(attention: Path, engine: Any) -> None:
    session = open_session(attention, target(engine))
    given = batch(4, 6)
    strided = {name: np.asfortranarray(value) for name, value in given.items()}
    np.testing.assert_array_equal(session.run(strided), session.run(given))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("content", [b"", b"not a model", b"\x08\x08\x12\x00" * 20])
def test_a_broken_file_is_one_line_that_names_it(tmp_path: Path, engine: Any, content: bytes) -> None:
    broken = tmp_path / "model.onnx"
    broken.write_bytes(content)
    with pytest.raises(ExportError, match=r"can't run .*model\.onnx") as caught:
        open_session(broken, target(engine))
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("engine", ENGINES)
def test_a_file_cut_short_is_refused(attention: Path, tmp_path: Path, engine: Any) -> None:
    cut = tmp_path / "model.onnx"
    cut.write_bytes(attention.read_bytes()[:-200])
    with pytest.raises(ExportError, match="can't run"):
        open_session(cut, target(engine))


def test_optimizers_are_switched_off_by_name(attention: Path, tmp_path: Path) -> None:
    def nodes(*names: str) -> list[str]:
        from slipway.engines.onnxruntime import create, session_options

        options = session_options(1)
        options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
        create(attention, target("onnxruntime", disabled_optimizers=list(names)), options)
        return [node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node]

    assert nodes() != nodes(
        "MatMulTransposeFusion", "TransposeOptimizer", "MatmulTransposeFusion", "QDQSelectorActionTransformer"
    )


def test_threads_can_be_overridden(attention: Path) -> None:
    from slipway.engines import openvino

    compiled = openvino.compile_model(attention, target("openvino"), 2)
    assert compiled.get_property("INFERENCE_NUM_THREADS") == 2
    assert compiled.get_property("NUM_STREAMS") == 1
    assert compiled.get_property("ENABLE_CPU_PINNING") is False


@pytest.mark.parametrize(("hint", "name"), [("f32", "float32"), ("bf16", "bfloat16")])
def test_the_precision_is_the_targets_and_not_the_processors(attention: Path, hint: Any, name: str) -> None:
    from slipway.engines import openvino

    compiled = openvino.compile_model(attention, target("openvino", precision_hint=hint), 1)
    found = str(compiled.get_property("INFERENCE_PRECISION_HINT"))
    assert name in found or (hint == "bf16" and "float32" in found)  # a processor without bf16


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("multiple", [1, 8, 16, 48])
def test_a_predictor_answers_alike_whatever_it_pads_to(bundle: Bundle, engine: Any, multiple: int) -> None:
    plain = Predictor(bundle.path, bundle.spec, bundle.target("cpu")).predict(TEXTS)
    changed = bundle.target("cpu").model_copy(update={"engine": engine, "pad_to_multiple_of": multiple})
    found = Predictor(bundle.path, bundle.spec, changed).predict(TEXTS)
    assert found.labels == plain.labels
    np.testing.assert_allclose(found.logits, plain.logits, atol=1e-5)


def test_padding_never_goes_beyond_what_the_model_takes(bundle: Bundle) -> None:
    encode = Encoder(bundle.path / TOKENIZER, bundle.spec.tokenization, pad_to_multiple_of=48)
    assert encode(["the " * 60])["input_ids"].shape == (1, MAX_TOKENS)
    assert encode(["the"])["input_ids"].shape == (1, 48)


def test_only_the_engine_that_a_bundle_names_is_imported(bundle: Bundle) -> None:
    code = (
        "import sys; from pathlib import Path; from slipway.bundle import Bundle\n"
        "from slipway.predictor import Predictor\n"
        "bundle = Bundle.open(Path(sys.argv[1]))\n"
        "target = bundle.target('cpu').model_copy(update={'engine': sys.argv[2]})\n"
        "Predictor(bundle.path, bundle.spec, target).predict(['good'])\n"
        "print(*sorted({'onnxruntime', 'openvino', 'torch', 'transformers', 'onnx'} & set(sys.modules)))"
    )
    for engine in ENGINES:
        command = [sys.executable, "-c", code, str(bundle.path), engine]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert done.stdout.split() == [engine]


def test_an_engine_that_is_not_installed_is_named(attention: Path) -> None:
    code = (
        "import sys; sys.modules['openvino'] = None; from pathlib import Path\n"
        "from slipway.bundle import Target; from slipway.engines import open_session\n"
        "try: open_session(Path(sys.argv[1]), Target(model='', precision='fp32', engine='openvino'))\n"
        "except ModuleNotFoundError as error: print(error.name)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(attention)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "openvino"  # what the command line finds the extra by


@pytest.mark.parametrize("engine", ENGINES)
def test_ctrl_c_arrives_after_models_came_and_went(attention: Path, engine: Any) -> None:
    code = (
        "import signal, sys; from pathlib import Path\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from slipway.bundle import Target; from slipway.engines import open_session\n"
        "target = Target(model='', precision='fp32', engine=sys.argv[2])\n"
        "first, second = (open_session(Path(sys.argv[1]), target) for _ in range(2))\n"
        "del first\n"
        "del second\n"
        "try: signal.raise_signal(signal.SIGINT)\n"
        "except KeyboardInterrupt: print('interrupted')"
    )
    command = [sys.executable, "-c", code, str(attention), engine]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "interrupted"


def test_openvino_starts_no_telemetry_session(bundle: Bundle, tmp_path: Path) -> None:
    # A session of its telemetry leaves a file in the home directory; CI variables silence it by themselves.
    quiet = {"CI", "GITHUB_ACTIONS", "JENKINS_URL", "TF_BUILD"}
    environment = {name: value for name, value in os.environ.items() if name not in quiet} | {"HOME": str(tmp_path)}
    code = "from slipway.engines.openvino import runtime; runtime()"
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    assert list(tmp_path.rglob("*")) == []
