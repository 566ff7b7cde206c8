"""The training stage: read, split, measure, fine-tune, measure again, write the checkpoint.

    checkpoint/
      manifest.json
      model.safetensors, config.json, tokenizer.json, …   what `save_pretrained` writes, label map in config.json
      metrics.json          {"before": {"test"}, "after": {"dev", "test"}}
      history.json          loss and learning rate by step, dev metrics by evaluation
      data.json             what was read, dropped and how it was split
      data/{train,dev,test}.parquet     text, label
      logits/{dev,test}.npy             float32 [rows, labels] of the fine-tuned model, in the order of data/

The splits travel with the checkpoint, so that whoever compresses it later gates on the very rows that it was selected
on and calibrates on rows that it learned from. That is a copy of the texts; keep a checkpoint where the table may be
kept.
"""

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from slipway.artifacts import Artifact, inputs_digest, read_artifact, write_artifact
from slipway.assets import fingerprint
from slipway.errors import TrainingError
from slipway.progress import say
from slipway.recipe import Recipe
from slipway.tasks import get_task
from training.bases import load_base
from training.evaluation import predict_logits
from training.finetuning import fine_tune, uses_bf16
from training.splits import Split, split_table
from training.tables import read_table

_BY_CHANCE = 0.02
"""A Matthews correlation below this is what guessing gives."""


def training_inputs(recipe: Recipe) -> str:
    """Digest of everything that the checkpoint depends on; see `slipway.artifacts.inputs_digest`."""
    references = {
        "base": (recipe.base.model, recipe.base.sha256),
        "data": (recipe.data.source, recipe.data.sha256),
    }
    if recipe.data.test_source is not None:
        references["test"] = (recipe.data.test_source, recipe.data.test_sha256)
    assets = {name: fingerprint(reference, sha256) for name, (reference, sha256) in references.items()}
    return inputs_digest("training", recipe.stage_inputs("train"), [], assets=assets)


def train(recipe: Recipe, out: Path) -> Artifact:
    """Make the checkpoint of `recipe` at `out`.

    Interrupted, it leaves its progress beside `out` and goes on from there when called with the same inputs.
    """
    inputs = training_inputs(recipe)
    table = read_table(recipe.data)
    splits = split_table(table, recipe.data, recipe.seed)
    sizes = ", ".join(f"{name} {len(getattr(splits, name).texts):,}" for name in ("train", "dev", "test"))
    removed = splits.report.get("duplicates_removed", 0)
    say(f"Data: {sizes} rows; {removed:,} duplicates removed; labels: {', '.join(splits.labels[:12])}")

    section, task = recipe.train, get_task(recipe.task)
    base = load_base(recipe.base, recipe.task, splits.labels, section.max_tokens, seed=recipe.seed)
    bf16 = uses_bf16(section)

    def logits_of(split: Split, label: str) -> Any:
        return predict_logits(
            base.model, base.tokenizer, split.texts, max_tokens=section.max_tokens, label=label, bf16=bf16
        )

    def measure(split: Split, logits: Any) -> dict[str, Any]:
        return task.evaluate(logits, np.asarray(split.targets, dtype=np.int64), splits.labels)

    untrained = logits_of(splits.test, "Accuracy before fine-tuning (test)")
    if not np.isfinite(untrained).all():
        raise TrainingError(
            f"base.model {recipe.base.model}: its answers to test are not finite, before any fine-tuning. Take a base "
            "that does not overflow."
        )
    before = {"test": measure(splits.test, untrained)}
    work = _work_folder(out, inputs)
    history = fine_tune(
        base, splits.train, splits.dev, splits.labels, section, task=recipe.task, seed=recipe.seed, work=work
    )
    # In fp32: these logits are the reference that export is held against.
    bf16 = False
    logits = {
        name: logits_of(split, f"Accuracy after fine-tuning ({name})")
        for name, split in (("dev", splits.dev), ("test", splits.test))
    }
    if not all(np.isfinite(values).all() for values in logits.values()):
        raise TrainingError(
            f"after fine-tuning, answers to dev or test are not finite. Lower train.learning_rate "
            f"({section.learning_rate:g}), or take a base that does not overflow."
        )
    after = {name: measure(getattr(splits, name), logits[name]) for name in logits}
    if after["dev"]["mcc"] < _BY_CHANCE:
        say(
            f"WARNING: the model learned nothing: on dev it tells the classes apart no better than by chance (MCC "
            f"{after['dev']['mcc']:.2f}). Lower train.learning_rate ({section.learning_rate:g}), train longer, or take "
            "a base that knows the language of the texts."
        )

    with write_artifact(
        out, "checkpoint", name=recipe.name, inputs=inputs, recipe=recipe.stage_inputs("train")
    ) as draft:
        base.model.save_pretrained(draft.path, safe_serialization=True)
        base.tokenizer.save_pretrained(draft.path)
        draft.write_json("metrics.json", {"before": before, "after": after})
        draft.write_json("history.json", dataclasses.asdict(history))
        draft.write_json("data.json", splits.report)
        (draft.path / "data").mkdir()
        (draft.path / "logits").mkdir()
        for name in ("train", "dev", "test"):
            split = getattr(splits, name)
            table_of_split = {
                "text": list(split.texts),
                "label": [splits.labels[target] for target in split.targets],
            }
            pq.write_table(pa.table(table_of_split), draft.path / "data" / f"{name}.parquet")
        for name, values in logits.items():
            np.save(draft.path / "logits" / f"{name}.npy", values, allow_pickle=False)
        draft.metrics.update(
            {
                "test_accuracy": after["test"]["accuracy"],
                "test_macro_f1": after["test"]["macro_f1"],
                "test_mcc": after["test"]["mcc"],
                "test_ece": after["test"]["ece"],
                f"dev_{section.metric}": after["dev"][section.metric],
                "majority_accuracy": after["test"]["majority_accuracy"],
            }
        )
    shutil.rmtree(work, ignore_errors=True)
    return read_artifact(out, "checkpoint", verify=False)


def _work_folder(out: Path, inputs: str) -> Path:
    """Folder for resumable checkpoints, named by the inputs: progress of another recipe is removed, not resumed."""
    out = out.absolute()
    work = out.parent / f".{out.name}.resume-{inputs[:12]}"
    for other in out.parent.glob(f".{out.name}.resume-*"):
        if other != work:
            shutil.rmtree(other, ignore_errors=True)
    work.mkdir(parents=True, exist_ok=True)
    return work
