"""Tiny bundles that are another version of the tiny one, or broken in one way each; each is a whole artifact.

What is broken is sealed with right digests, as a bug of an exporter would: only serving it can find out.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from slipway.artifacts import MANIFEST, write_artifact
from slipway.bundle import SPEC, Bundle
from tests.tiny_bundle import write_tiny_bundle

NEWER = {"broken": "neutral", "monday": "positive"}
"""Two of the words have another label: most texts keep theirs."""
OPPOSITE = {
    **dict.fromkeys(("terrible", "bad", "awful", "worst", "waste", "hate", "差", "坏", "糟", "😡", "👎"), "positive"),
    **dict.fromkeys(("excellent", "good", "great", "love", "best", "wonderful", "好", "棒", "爱", "😀"), "negative"),
}
UNKNOWN_TO_SHORT_VOCABULARY = "boxs"
"""A text that `with_a_short_vocabulary` can't run and the good model can; no check and no test text is like it."""

_MODEL = "cpu/model.onnx"
_WIDE, _ROUNDS = 512, 12


def newer(directory: Path) -> Bundle:
    """A model that was trained anew."""
    return write_tiny_bundle(directory, moods=NEWER)


def opposite(directory: Path) -> Bundle:
    """A model that says the opposite."""
    return write_tiny_bundle(directory, moods=OPPOSITE)


def unreadable(bundle: Bundle, directory: Path) -> Bundle:
    """The model file ends in the middle."""
    return _sealed(bundle, directory, lambda path: (path / _MODEL).write_bytes((path / _MODEL).read_bytes()[:200]))


def with_wrong_checks(bundle: Bundle, directory: Path) -> Bundle:
    """The bundle says of itself what its model doesn't say."""

    def change(spec: dict[str, Any]) -> None:
        spec["checks"][0]["label"] = "negative"

    return _sealed(bundle, directory, _in_spec(change))


def with_other_labels(bundle: Bundle, directory: Path) -> Bundle:
    """The same model with its labels in another order: it runs, and callers would read something else in it."""
    return _sealed(bundle, directory, _in_spec(lambda spec: spec.update(labels=spec["labels"][::-1], checks=[])))


def with_another_task(bundle: Bundle, directory: Path) -> Bundle:
    """A model for another task under the same name."""
    return _sealed(bundle, directory, _in_spec(lambda spec: spec.update(task="token-classification")))


def with_a_short_vocabulary(bundle: Bundle, directory: Path) -> Bundle:
    """The embedding lacks its last row: texts with that token fail."""

    def change(model: onnx.ModelProto) -> None:
        for tensor in model.graph.initializer:
            if tensor.name == "weights":
                tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor)[:-1], tensor.name))

    return _sealed(bundle, directory, _in_model(change))


def slow(bundle: Bundle, directory: Path) -> Bundle:
    """The same answers, some fifty milliseconds later: large products whose result is added times zero."""

    def change(model: onnx.ModelProto) -> None:
        graph = model.graph
        last = graph.node[-1]
        last.output[0] = "quick"
        constants = {
            "zero": np.array(0.0, dtype=np.float32),
            "small": np.array(1e-3, dtype=np.float32),
            "wide": np.array([_WIDE, _WIDE], dtype=np.int64),
        }
        graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
        graph.node.extend(
            [
                # From the batch, so that it can't be computed beforehand.
                helper.make_node("ReduceSum", ["quick"], ["sum"], keepdims=0),
                helper.make_node("Mul", ["sum", "zero"], ["nought"]),
                helper.make_node("Add", ["nought", "small"], ["seed"]),
                helper.make_node("Expand", ["seed", "wide"], ["product0"]),
                *(
                    helper.make_node("MatMul", [f"product{number}", "product0"], [f"product{number + 1}"])
                    for number in range(_ROUNDS)
                ),
                helper.make_node("ReduceMax", [f"product{_ROUNDS}"], ["largest"], keepdims=0),
                helper.make_node("Mul", ["largest", "zero"], ["nothing"]),
                helper.make_node("Add", ["quick", "nothing"], ["logits"]),
            ]
        )

    return _sealed(bundle, directory, _in_model(change))


def _sealed(bundle: Bundle, directory: Path, change: Callable[[Path], object]) -> Bundle:
    """A copy of `bundle` with a change, as an artifact of its own."""
    with write_artifact(directory, "bundle", name=bundle.spec.name, inputs=f"{directory.name}") as draft:
        shutil.copytree(bundle.path, draft.path, dirs_exist_ok=True, ignore=shutil.ignore_patterns(MANIFEST))
        change(draft.path)
    return Bundle.open(directory)


def _in_spec(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def apply(path: Path) -> None:
        spec = json.loads((path / SPEC).read_text())
        change(spec)
        (path / SPEC).write_text(json.dumps(spec))

    return apply


def _in_model(change: Callable[[onnx.ModelProto], None]) -> Callable[[Path], None]:
    def apply(path: Path) -> None:
        model = onnx.load(path / _MODEL)
        change(model)
        onnx.checker.check_model(model)
        onnx.save(model, path / _MODEL)

    return apply
