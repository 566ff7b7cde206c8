"""A checkpoint that somebody broke is refused in one line, before anything is made of it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file, save_file

import export
from slipway.artifacts import Artifact, write_artifact
from slipway.errors import ArtifactError, ExportError
from slipway.recipe import Export

pytestmark = pytest.mark.integration


def altered(checkpoint: Artifact, out: Path, change: Callable[[Path], object]) -> Path:
    """A whole artifact that is `checkpoint` after `change`."""
    manifest = checkpoint.manifest
    with write_artifact(out, "checkpoint", name=manifest.name, inputs="other", recipe=manifest.recipe) as draft:
        shutil.copytree(checkpoint.path, draft.path, dirs_exist_ok=True)
        (draft.path / "manifest.json").unlink()
        draft.metrics.update(manifest.metrics)
        change(draft.path)
    return out


def replace_in(name: str, before: str, after: str) -> Callable[[Path], object]:
    return lambda path: (path / name).write_text((path / name).read_text().replace(before, after))


def holding(name: str, content: bytes) -> Callable[[Path], object]:
    return lambda path: (path / name).write_bytes(content)


def with_values(name: str, **values: Any) -> Callable[[Path], object]:
    """Top-level values of a JSON file; None takes one away."""

    def change(path: Path) -> None:
        content = json.loads((path / name).read_text(encoding="utf-8")) | values
        kept = {key: value for key, value in content.items() if value is not None}
        (path / name).write_text(json.dumps(kept), encoding="utf-8")

    return change


def with_weights(change: Callable[[dict[str, np.ndarray]], object]) -> Callable[[Path], object]:
    def changed(path: Path) -> None:
        weights = load_file(path / "model.safetensors")
        change(weights)
        save_file(weights, path / "model.safetensors", {"format": "pt"})

    return changed


def with_logits(logits: np.ndarray) -> Callable[[Path], object]:
    """Of dev, `[rows, labels]`."""
    return lambda path: np.save(path / "logits" / "dev.npy", logits)


def with_rows(split: str, texts: list[str | None], labels: list[str]) -> Callable[[Path], object]:
    table = pa.table({"text": pa.array(texts, pa.string()), "label": pa.array(labels, pa.string())})
    return lambda path: pq.write_table(table, path / "data" / f"{split}.parquet")


def larger_vocabulary(path: Path) -> None:
    content = json.loads((path / "tokenizer.json").read_text(encoding="utf-8"))
    content["model"]["vocab"]["rare"] = 900
    (path / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")


DENSE = "bert.encoder.layer.0.output.dense.weight"
BIAS = "bert.encoder.layer.0.output.dense.bias"

DAMAGES = {
    "tokenizer, not JSON": (holding("tokenizer.json", b"{"), "no usable tokenizer"),
    "tokenizer, a list": (holding("tokenizer.json", b"[]"), "no usable tokenizer"),
    "tokenizer, no model": (with_values("tokenizer.json", model=None), "no usable tokenizer"),
    "tokenizer, more tokens": (
        larger_vocabulary,
        "token 'rare' with the number 900, but the model has",
    ),
    "tokenizer, its config": (with_values("tokenizer_config.json", model_max_length="many"), "tokenizer_config.json"),
    "tokenizer, no padding": (with_values("tokenizer_config.json", pad_token=None), "without a padding token"),
    "config, empty": (holding("config.json", b""), "config.json is not JSON"),
    "config, a list": (holding("config.json", b"[]"), "config.json holds a list, not an object"),
    "config, null": (holding("config.json", b"null"), "config.json holds null, not an object"),
    "config, no type": (with_values("config.json", model_type=None), "does not name a model_type"),
    "config, unknown type": (with_values("config.json", model_type="frobnicate"), "which transformers .* doesn't know"),
    "config, t5": (with_values("config.json", model_type="t5"), "'t5', an encoder with a decoder; allowed are"),
    "config, images": (with_values("config.json", model_type="vit"), "don't classify texts"),
    "config, no sizes": (with_values("config.json", hidden_size=None), "of the right size"),
    "config, a text for a size": (with_values("config.json", hidden_size="32"), "no model can be built with"),
    "config, activation": (with_values("config.json", hidden_act=3), "can't answer a text"),
    "config, quantized": (with_values("config.json", quantization_config={"quant_method": "gptq"}), "are quantized"),
    "config, labels as a list": (with_values("config.json", id2label=["bad", "good"]), "no id2label"),
    "config, labels twice": (with_values("config.json", id2label={"0": "bad", "1": "bad"}), "two classes named 'bad'"),
    "config, more labels": (
        with_values("config.json", id2label={"0": "bad", "1": "good", "2": "fair"}),
        "and the model 3 labels",
    ),
    "config, labels in another order": (
        with_values("config.json", id2label={"0": "good", "1": "bad"}),
        "The labels are in another order",
    ),
    "config, a decoder": (with_values("config.json", is_decoder=True), "has is_decoder: true"),
    "config, fewer layers": (with_values("config.json", num_hidden_layers=1), "isn't the classifier that its config"),
    "weights, zero bytes": (holding("model.safetensors", b""), "no whole safetensors file"),
    "weights, a tensor less": (with_weights(lambda weights: weights.pop(DENSE)), f"have no {DENSE}"),
    "weights, a tensor more": (
        with_weights(lambda weights: weights.update(extra=np.zeros(3, np.float32))),
        "have extra, which such a model doesn't",
    ),
    "weights, another shape": (
        with_weights(lambda weights: weights.update({DENSE: np.zeros((32, 63), np.float32)})),
        f"have no {DENSE} of the right size",
    ),
    "weights, integers": (
        with_weights(lambda weights: weights.update({DENSE: np.zeros((32, 64), np.int64)})),
        "not of the model that its config.json describes",
    ),
    "tokenizer, none": (lambda path: (path / "tokenizer.json").unlink(), "has no tokenizer.json"),
    "config, another label": (
        replace_in("config.json", '"good"', '"fine"'),
        "label 'good', which is not one of the model's",
    ),
    "config, family": (replace_in("config.json", '"model_type": "bert"', '"model_type": "mamba"'), "mamba"),
    "weights, no file": (holding("model.safetensors", b"x" * 64), "can't be loaded"),
    "weights, not finite": (
        with_weights(lambda weights: weights[BIAS].fill(np.nan)),
        r"layer\.0\.output\.dense\.bias have values that are not finite",
    ),
    "logits, another shape": (with_logits(np.zeros((3, 2), np.float32)), r"has the shape \(3, 2\)"),
    "logits, of another model": (
        lambda path: np.save(path / "logits" / "dev.npy", -np.load(path / "logits" / "dev.npy")),
        r"for text 0 of dev the weights give logits that are .* The logits are of another model",
    ),
    "logits, not finite": (with_logits(np.full((40, 2), np.nan, np.float32)), "not finite"),
    "train, a text that is none": (
        with_rows("train", ["great", None], ["good", "bad"]),
        "has a row whose text is not text",
    ),
    "train, no rows": (with_rows("train", [], []), r"train\.parquet has no rows"),
    "train, no table": (holding("data/train.parquet", b"PAR1"), r"train\.parquet can't be read"),
    "dev, no rows": (with_rows("dev", [], []), r"dev\.parquet has no rows"),
}


@pytest.mark.parametrize(("change", "said"), DAMAGES.values(), ids=DAMAGES)
def test_a_checkpoint_that_somebody_broke_is_refused_in_one_line_and_nothing_is_left(
    tiny_checkpoint: Artifact, tmp_path: Path, change: Callable[[Path], object], said: str
) -> None:
    path = altered(tiny_checkpoint, tmp_path / "checkpoint", change)
    with pytest.raises(ExportError, match=said) as caught:
        export.export(path, tmp_path / "bundle", Export(effort="quantize"))
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == [path]


def test_a_checkpoint_that_no_training_wrote_is_refused(tiny_checkpoint: Artifact, tmp_path: Path) -> None:
    with write_artifact(tmp_path / "checkpoint", "checkpoint", name="made", inputs="other", recipe={}) as draft:
        shutil.copytree(tiny_checkpoint.path, draft.path, dirs_exist_ok=True)
        (draft.path / "manifest.json").unlink()
    with pytest.raises(ExportError, match=r"recipe\.task, recipe\.train\.max_tokens"):
        export.export(tmp_path / "checkpoint", tmp_path / "bundle", Export(effort="quantize"))


def test_an_altered_checkpoint_is_refused(tiny_checkpoint: Artifact, tmp_path: Path) -> None:
    copy = tmp_path / "checkpoint"
    shutil.copytree(tiny_checkpoint.path, copy)
    with (copy / "model.safetensors").open("r+b") as stream:
        stream.seek(-1, 2)
        stream.write(b"\x7f")
    with pytest.raises(ArtifactError, match=r"model\.safetensors has changed"):
        export.export(copy, tmp_path / "bundle", Export())
    assert not (tmp_path / "bundle").exists()
