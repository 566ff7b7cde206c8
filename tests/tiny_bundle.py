"""A real bundle that is made in milliseconds: a bag of words in ONNX, a WordPiece tokenizer, its own answers.

Each known word adds to the logit of one label; the words of the text decide. It goes through the same
tokenizer library, ONNX Runtime and decoding as a fine-tuned transformer's bundle, so a test that passes on it
has met every part but the size. No torch: a serving machine's tests run where there is none.
"""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet as pq
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from slipway.artifacts import canonical_digest, write_artifact
from slipway.bundle import (
    EXPECTED,
    FRONTIER,
    SPEC,
    TOKENIZER,
    Bundle,
    BundleSpec,
    Check,
    EngineName,
    Target,
    Tokenization,
    Variant,
)
from slipway.engines import defaults
from slipway.predictor import Prediction, Predictor
from slipway.tasks.metrics import classification_metrics, softmax

LABELS = ["negative", "neutral", "positive"]
MAX_TOKENS = 64

_SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
_WORDS = {
    "negative": [
        "terrible",
        "bad",
        "awful",
        "broken",
        "waste",
        "worst",
        "hate",
        "差",
        "坏",
        "糟",
        "😡",
        "👎",
    ],
    "neutral": [
        "report",
        "monday",
        "table",
        "box",
        "arrives",
        "the",
        "a",
        "is",
        "it",
        "天",
        "是",
        "的",
        "。",
        ".",
    ],
    "positive": [
        "excellent",
        "good",
        "great",
        "love",
        "best",
        "wonderful",
        "好",
        "棒",
        "爱",
        "😀",
        "👍",
        "🎉",
    ],
}
_WEIGHT = {"negative": 2.0, "neutral": 0.1, "positive": 2.0}

CHECK_TEXTS = [
    "An excellent, wonderful box.",
    "It is the worst waste.",
    "The report arrives monday.",
    "好棒!",
    "👍 🎉",
]


def write_tiny_bundle(
    directory: Path,
    name: str = "tiny",
    *,
    engine: EngineName = "onnxruntime",
    invariant: bool = True,
    gpu: bool = False,
    moods: Mapping[str, str] = MappingProxyType({}),
) -> Bundle:
    """Write a bundle artifact at `directory` and open it; every call gives the same model and answers.

    With `gpu` the same model is there for a GPU, too; without `invariant` the bundle says that its answers depend on
    what is in the batch. `moods` are words that this model knows with another label, as one trained anew would.
    """
    with write_artifact(directory, "bundle", name=name, inputs=canonical_digest(["tiny", name, dict(moods)])) as draft:
        words = [word for words in _WORDS.values() for word in words]
        vocabulary = {token: index for index, token in enumerate([*_SPECIAL, *words, "##s"])}
        _tokenizer(vocabulary).save(str(draft.path / TOKENIZER))
        target = Target(
            model="cpu/model.onnx",
            precision="fp32",
            threads=1,
            engine=engine,
            batch_invariant=invariant,
            **defaults(engine),
        )
        model_file = draft.path / target.model
        model_file.parent.mkdir()
        model_file.write_bytes(_model(vocabulary, moods).SerializeToString())
        targets: dict[Literal["cpu", "gpu"], Target] = {"cpu": target}
        if gpu:
            targets["gpu"] = Target(model="gpu/model.onnx", precision="fp16", **defaults("onnxruntime"))
            (draft.path / "gpu").mkdir()
            (draft.path / "gpu" / "model.onnx").write_bytes(model_file.read_bytes())
        spec = BundleSpec(
            name=name,
            task="sequence-classification",
            labels=LABELS,
            tokenization=Tokenization(
                max_tokens=MAX_TOKENS, pad_token=_SPECIAL[0], pad_id=0, inputs=["input_ids", "attention_mask"]
            ),
            targets=targets,
            checks=[],
        )
        predictor = Predictor(draft.path, spec, target)
        checks = predictor.predict(CHECK_TEXTS)
        spec = spec.model_copy(
            update={
                "checks": [
                    Check(text=text, label=label, score=float(score))
                    for text, label, score in zip(CHECK_TEXTS, checks.labels, checks.scores, strict=True)
                ]
            }
        )
        draft.write_json(SPEC, spec.model_dump(mode="json"))
        texts, truth = _test_split()
        answers = predictor.predict(texts)
        _write_expected(draft.path / EXPECTED, texts, truth, answers)
        draft.write_json(FRONTIER, [_frontier_row(model_file, truth, answers).model_dump(mode="json")])
    return Bundle.open(directory)


def _tokenizer(vocabulary: dict[str, int]) -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token=_SPECIAL[1]))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True, handle_chinese_chars=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[(token, vocabulary[token]) for token in ("[CLS]", "[SEP]")]
    )
    return tokenizer


def _model(vocabulary: dict[str, int], moods: Mapping[str, str]) -> onnx.ModelProto:
    """`logits[b] = bias + sum over tokens of mask[b, t] * weight[ids[b, t]]`."""
    weights = np.zeros((len(vocabulary), len(LABELS)), dtype=np.float32)
    for label, words in _WORDS.items():
        for word in words:
            mood = moods.get(word, label)
            weights[vocabulary[word], LABELS.index(mood)] = _WEIGHT[mood]
    constants = {
        "weights": weights,
        "bias": np.array([0.0, 0.5, 0.0], dtype=np.float32),
        "last": np.array([2], dtype=np.int64),
        "tokens": np.array([1], dtype=np.int64),
    }
    nodes = [
        helper.make_node("Gather", ["weights", "input_ids"], ["embedded"], axis=0),
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "last"], ["mask3"]),
        helper.make_node("Mul", ["embedded", "mask3"], ["masked"]),
        helper.make_node("ReduceSum", ["masked", "tokens"], ["summed"], keepdims=0),
        helper.make_node("Add", ["summed", "bias"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "bag_of_words",
        [
            helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "tokens"])
            for name in ("input_ids", "attention_mask")
        ],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", len(LABELS)])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model


def _test_split() -> tuple[list[str], list[str]]:
    """Texts of many lengths with the label of the word in them; every ninth is mislabelled, as data are."""
    texts, truth = [], []
    for label, words in _WORDS.items():
        for number, word in enumerate(words):
            for repeat in range(3):
                texts.append(f"{'the box is ' * (number % 4)}{word}{' it arrives' * repeat}.")
                truth.append(label if len(texts) % 9 else LABELS[(LABELS.index(label) + 1) % 3])
    return texts, truth


def _write_expected(file: Path, texts: list[str], truth: list[str], answers: Prediction) -> None:
    ranked = np.sort(softmax(answers.logits), axis=1)
    columns = {
        "text": texts,
        "label": truth,
        "predicted": answers.labels,
        "score": pa.array(answers.scores, pa.float32()),
        "margin": pa.array(ranked[:, -1] - ranked[:, -2], pa.float32()),
    }
    pq.write_table(pa.table(columns), file)


def _frontier_row(model: Path, truth: list[str], answers: Prediction) -> Variant:
    targets = np.array([LABELS.index(label) for label in truth], dtype=np.int64)
    return Variant(
        name="fp32",
        precision="fp32",
        engine="onnxruntime",
        bytes=model.stat().st_size,
        metric="macro_f1",
        dev=classification_metrics(answers.logits, targets, LABELS),
        loss_points=0.0,
        agreement=1.0,
        max_logit_difference=0.0,
        latency_ms={"p50": 0.1, "p95": 0.2},
        speedup=1.0,
        passed=True,
        chosen=True,
        verdict="the only variant",
    )
