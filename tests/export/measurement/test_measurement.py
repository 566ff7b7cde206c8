"""Variants are measured beside each other, on batches of real tokens, and leave no trace in the process."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export.measurement import SHAPES, Corpus, Shape, interleaved_latencies, speeds, torch_model
from export.measurement.memory import Memory, session_memory, torch_memory
from slipway.bundle import TOKENIZER, Bundle, Target
from slipway.engines import open_session
from slipway.errors import ExportError
from slipway.predictor import Encoder
from tests.tiny_bundle import write_tiny_bundle

pytestmark = pytest.mark.integration

TEXTS = ["the box is great", "bad", "the report arrives monday. good"]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_tiny_bundle(tmp_path_factory.mktemp("tiny") / "bundle")


@pytest.fixture
def corpus(bundle: Bundle) -> Corpus:
    return Corpus(Encoder(bundle.path / TOKENIZER, bundle.spec.tokenization), TEXTS)


def test_a_shape_is_read_as_it_is_written() -> None:
    assert Shape.parse(" 32X128 ") == Shape(32, 128)
    assert [str(shape) for shape in SHAPES] == ["1x32", "8x32", "32x32", "1x128", "8x128", "32x128"]
    assert all(Shape.parse(str(shape)) == shape for shape in SHAPES)


@pytest.mark.parametrize("text", ["", "x", "32", "32x", "x128", "0x128", "1x1", "-1x8", "1x8x8", "axb", "1.5x8"])
def test_what_is_not_a_shape_is_said_with_an_example(text: str) -> None:
    with pytest.raises(ExportError, match="not a shape; write batch x tokens, such as 1x128"):
        Shape.parse(text)


def test_batches_are_cut_from_real_texts_without_padding(corpus: Corpus, bundle: Bundle) -> None:
    ids = Encoder(bundle.path / TOKENIZER, bundle.spec.tokenization)(TEXTS)["input_ids"]
    batch = corpus.batch(Shape(4, 9))
    assert list(batch) == ["input_ids", "attention_mask"]
    assert {value.shape for value in batch.values()} == {(4, 9)}
    assert set(batch["input_ids"].ravel()) <= set(ids.ravel()) - {0}
    assert len(set(batch["input_ids"].ravel())) > 5
    assert (batch["input_ids"][:, 0] == ids[0, 0]).all()
    assert batch["attention_mask"].all()


def test_there_must_be_texts_to_measure_with(bundle: Bundle) -> None:
    with pytest.raises(ExportError, match="no texts"):
        Corpus(Encoder(bundle.path / TOKENIZER, bundle.spec.tokenization), [])


def test_every_variant_is_measured_at_every_shape_in_turns(corpus: Corpus) -> None:
    calls: list[tuple[str, tuple[int, ...]]] = []

    def run(name: str) -> Any:
        return lambda batch: calls.append((name, batch["input_ids"].shape))

    shapes = [Shape(1, 4), Shape(3, 8)]
    found = speeds({"a": run("a"), "b": run("b")}, shapes, corpus, budget_s=0.2)
    assert {name: list(by_shape) for name, by_shape in found.items()} == {"a": shapes, "b": shapes}
    at_first = [name for name, shape in calls[6:] if shape == (1, 4)]
    turns = [name for before, name in zip(["", *at_first], at_first, strict=False) if name != before]
    assert turns.count("a") >= 5
    assert turns.count("b") >= 5
    speed = found["a"][shapes[1]]
    assert 0 < speed.p50_ms <= speed.p95_ms
    assert speed.sequences_per_s == pytest.approx(3 / speed.p50_ms * 1e3, rel=0.2)


def test_a_slow_variant_has_fewer_runs_and_the_budget_holds(corpus: Corpus) -> None:
    counts = {"fast": 0, "slow": 0}

    def run(name: str, work: int) -> Any:
        def multiply(batch: Mapping[str, Any]) -> None:
            counts[name] += 1
            square = np.ones((work, work))
            square @ square

        return multiply

    found = speeds({"fast": run("fast", 2), "slow": run("slow", 500)}, [Shape(1, 4)], corpus, budget_s=0.5)
    assert found["slow"][Shape(1, 4)].runs < found["fast"][Shape(1, 4)].runs
    assert found["slow"][Shape(1, 4)].p50_ms > found["fast"][Shape(1, 4)].p50_ms
    assert counts["slow"] >= 5


def test_variants_with_other_vocabularies_get_their_own_numbers(corpus: Corpus, bundle: Bundle) -> None:
    seen: dict[str, Any] = {}
    other = Corpus(Encoder(bundle.path / TOKENIZER, bundle.spec.tokenization), ["awful 差"])
    runs = {name: (lambda batch, name=name: seen.update({name: batch["input_ids"]})) for name in ("a", "b")}
    speeds(runs, [Shape(2, 6)], {"a": corpus, "b": other}, budget_s=0.01)
    np.testing.assert_array_equal(seen["a"], corpus.batch(Shape(2, 6))["input_ids"])
    np.testing.assert_array_equal(seen["b"], other.batch(Shape(2, 6))["input_ids"])


def test_latencies_are_of_every_input_for_every_variant() -> None:
    inputs = [{"input_ids": np.full((1, tokens), tokens)} for tokens in range(1, 21)]
    seen: dict[str, list[int]] = {"a": [], "b": []}
    runs: Any = {name: (lambda batch, rows=rows: rows.append(batch["input_ids"][0, 0])) for name, rows in seen.items()}
    found = interleaved_latencies(runs, inputs, warmup=3)
    assert seen["a"] == seen["b"]
    assert sorted(seen["a"][3:]) == list(range(1, 21))
    assert seen["a"][3:] != sorted(seen["a"][3:])  # lengths come in no order
    assert set(found) == {"a", "b"}
    assert all(0 <= latency["p50"] <= latency["p95"] for latency in found.values())


def test_pytorchs_threads_are_put_back_even_after_an_error() -> None:
    import torch

    before = torch.get_num_threads()

    def fail() -> None:
        with torch_model(None, before + 1):
            assert torch.get_num_threads() == before + 1
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert torch.get_num_threads() == before


def table(file: Path, rows: int) -> Path:
    """A model of `rows` × 256 floats whose logits are of the tokens' mean row."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    generator = np.random.default_rng(0)
    weights = {
        "table": generator.standard_normal((rows, 256)).astype(np.float32),
        "head": generator.standard_normal((256, 3)).astype(np.float32),
        "axes": np.array([1], dtype=np.int64),
    }
    graph = helper.make_graph(
        [
            helper.make_node("Gather", ["table", "input_ids"], ["rows"]),
            helper.make_node("ReduceSum", ["rows", "axes"], ["row"], keepdims=0),
            helper.make_node("MatMul", ["row", "head"], ["logits"]),
        ],
        "table",
        [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "sequence"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 3])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), file)
    return file


def test_a_big_model_takes_its_weights_of_memory_and_a_small_one_next_to_nothing(tmp_path: Path) -> None:
    target = Target(model="", precision="fp32")
    batch = {"input_ids": np.random.default_rng(0).integers(0, 100, (32, 128))}
    small = session_memory(table(tmp_path / "small.onnx", 100), target, batch)
    big = session_memory(table(tmp_path / "big.onnx", 40_000), target, batch)  # 41 MB
    assert big.resident_mb > small.resident_mb + 30
    assert big.peak_mb > small.peak_mb + 30
    assert small.resident_mb < 10


def test_the_peak_is_of_running_and_grows_with_the_batch(tmp_path: Path) -> None:
    model = table(tmp_path / "model.onnx", 100)
    target = Target(model="", precision="fp32", engine="openvino")

    def peak(rows: int) -> Memory:
        return session_memory(model, target, {"input_ids": np.ones((rows, 128), dtype=np.int64)})

    assert peak(512).peak_mb > peak(1).peak_mb + 40  # 67 MB of gathered rows


def test_memory_of_what_cant_run_is_one_line(tmp_path: Path) -> None:
    broken = tmp_path / "model.onnx"
    broken.write_bytes(b"not a model")
    with pytest.raises(ExportError, match=r"memory can't be measured: .*can't run .*model\.onnx") as caught:
        session_memory(broken, Target(model="", precision="fp32"), {"input_ids": np.ones((1, 2), dtype=np.int64)})
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.slow
def test_pytorchs_memory_is_measured_the_same_way(tmp_path: Path) -> None:
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64)
    BertForSequenceClassification(config).save_pretrained(tmp_path)
    ids = np.ones((32, 128), dtype=np.int64)
    found = torch_memory(tmp_path, {"input_ids": ids, "attention_mask": ids})
    assert 0 < found.peak_mb < 500


def test_an_engine_is_measured_as_it_is_served(bundle: Bundle, corpus: Corpus) -> None:
    target = bundle.target("cpu")
    session = open_session(bundle.path / target.model, target)
    found = speeds({"served": session.run}, [Shape(2, 8)], corpus, budget_s=0.05)
    assert found["served"][Shape(2, 8)].runs >= 5
