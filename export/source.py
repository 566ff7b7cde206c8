"""The dense checkpoint, opened for export: what every variant is made from and held against.

What could make a search fail an hour later is checked here, before anything is computed: a tokenizer that can't be
served, labels of the splits that the model doesn't have, logits that are of another model. Dev decides, train
calibrates and teaches, test is read once, when the bundle is written.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from export.graph import quietly, require_exportable
from slipway.artifacts import Artifact, read_artifact
from slipway.bundle import TOKENIZER
from slipway.errors import ExportError, first_line
from slipway.inputs import taken_by
from slipway.soundness import answer_problem, config_problem, tokenizer_problem
from slipway.tasks import get_task

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]

_LOOKED_AT = 8
"""Texts of dev that are run again."""
_SAME_LOGITS = 0.02
"""Relative to the largest logit. Sums in another order explain about 1e-5 in fp32 and some thousandths in TF32."""
_SAME_METRIC = 1e-6


@dataclass(frozen=True)
class Rows:
    """Texts of a split and their class numbers, `[rows]` each."""

    texts: list[str]
    targets: IntArray


@dataclass(frozen=True)
class Source:
    """A checkpoint artifact and the rows that travel with it."""

    checkpoint: Artifact
    task: str
    labels: list[str]
    max_tokens: int
    train: Rows
    dev: Rows
    dev_logits: FloatArray
    """Of the dense model in fp32, `[rows, labels]`: the reference."""

    @classmethod
    def open(cls, path: Path) -> "Source":
        """Open the checkpoint at `path`; raises `ArtifactError` if it was changed, `ExportError` if unusable."""
        checkpoint = read_artifact(path, "checkpoint")
        task, max_tokens = _settings(checkpoint)
        _require_tokenizer(path)
        _require(path, config_problem(path))
        labels = _labels(checkpoint)
        train, dev = (_rows(path, name, labels) for name in ("train", "dev"))
        dev_logits = _logits(path, "dev", len(dev.texts), len(labels))
        model, tokenizer = _opened(path)
        _require_own_logits(path, model, tokenizer, dev.texts, dev_logits, max_tokens)
        source = cls(
            checkpoint=checkpoint,
            task=task,
            labels=labels,
            max_tokens=max_tokens,
            train=train,
            dev=dev,
            dev_logits=dev_logits,
        )
        source._require_own_metrics()
        return source

    @property
    def path(self) -> Path:
        """Where the checkpoint is."""
        return self.checkpoint.path

    @cached_property
    def dense_dev(self) -> dict[str, Any]:
        """Metrics of the dense model on dev."""
        return get_task(self.task).evaluate(self.dev_logits, self.dev.targets, self.labels)

    def _require_own_metrics(self) -> None:
        """Labels in another order leave weights and logits as they were, and make nonsense of what they say."""
        for name, noted in self.checkpoint.manifest.metrics.items():
            found = self.dense_dev.get(name.removeprefix("dev_")) if name.startswith("dev_") else None
            if isinstance(found, float) and isinstance(noted, float) and abs(found - noted) > _SAME_METRIC:
                raise ExportError(
                    f"{self.path}: by the labels in config.json and data/dev.parquet the model has {found:.4f} as "
                    f"{name}, but its manifest says {noted:.4f}. The labels are in another order, or dev is another "
                    "split."
                )

    def held_out(self) -> list[str]:
        """Texts that nothing may be learned from."""
        return [*self.dev.texts, *_rows(self.path, "test", self.labels).texts]

    def test(self) -> tuple[Rows, FloatArray]:
        """The test split and the dense model's logits on it; for the report, once."""
        rows = _rows(self.path, "test", self.labels)
        return rows, _logits(self.path, "test", len(rows.texts), len(self.labels))


def _require_tokenizer(path: Path) -> None:
    if not (path / TOKENIZER).is_file():
        raise ExportError(
            f"{path} has no {TOKENIZER}; a server tokenizes with nothing else. Save the fast tokenizer there."
        )


def _settings(checkpoint: Artifact) -> tuple[str, int]:
    """Task and most tokens of a text, as training noted them."""
    recipe = checkpoint.manifest.recipe
    task, train = recipe.get("task"), recipe.get("train")
    max_tokens = train.get("max_tokens") if isinstance(train, dict) else None
    if not isinstance(task, str) or not isinstance(max_tokens, int):
        raise ExportError(
            f"{checkpoint.path} does not say in its manifest for which task it was trained and with how many tokens "
            "(recipe.task, recipe.train.max_tokens), so no training wrote it. Make one with: slipway train."
        )
    return task, max_tokens


def _labels(checkpoint: Artifact) -> list[str]:
    names = checkpoint.json("config.json").get("id2label")
    found = [names.get(str(index)) for index in range(len(names))] if isinstance(names, dict) else []
    labels = [label for label in found if isinstance(label, str) and label]
    if len(labels) < 2 or len(labels) < len(found):
        raise ExportError(
            f"{checkpoint.path / 'config.json'} has no id2label with a name for each of at least two classes."
        )
    twice = next((label for label in labels if labels.count(label) > 1), None)
    if twice is not None:
        raise ExportError(f"{checkpoint.path / 'config.json'} has an id2label with two classes named {twice!r}.")
    return labels


def _require(path: Path, problem: str | None) -> None:
    if problem is not None:
        raise ExportError(f"{path} can't be exported: {problem}.")


def _opened(path: Path) -> tuple[Any, Any]:
    """The model and its tokenizer; raises `ExportError` if they can't be opened, or don't belong together."""
    from slipway.pruned import load_classifier

    model = load_classifier(path)
    require_exportable(model)
    try:
        tokenizer = tokenizer_of(path)
    except Exception as error:  # out of Rust, without a type of its own
        raise ExportError(
            f"{path} has no usable tokenizer ({first_line(error)}). Save the fast tokenizer there anew."
        ) from error
    if tokenizer.pad_token is None:
        raise ExportError(f"{path} has a tokenizer without a padding token; name one in its tokenizer_config.json.")
    _require(path, tokenizer_problem(tokenizer, model))
    _require(path, answer_problem(tokenizer, model))
    return model, tokenizer


def _require_own_logits(
    path: Path, model: Any, tokenizer: Any, texts: list[str], logits: FloatArray, max_tokens: int
) -> None:
    """The reference has to be what these weights say, or every variant would be held against another model."""
    import torch

    for number in sorted({round(place) for place in np.linspace(0, len(texts) - 1, _LOOKED_AT)}):
        tokens = tokenizer(texts[number], truncation=True, max_length=max_tokens, return_tensors="pt")
        with torch.no_grad():
            said = model(**taken_by(model, tokens)).logits[0].numpy()
        apart = float(np.abs(said - logits[number]).max())
        if apart > _SAME_LOGITS * max(1.0, float(np.abs(said).max())):
            raise ExportError(
                f"{path}: for text {number} of dev the weights give logits that are {apart:.2g} from those in "
                "logits/dev.npy. The logits are of another model."
            )


def tokenizer_of(files: Path) -> Any:
    """The fast tokenizer in `files`, which pads batch by batch on purpose (the library would advise against it).

    It cuts and pads at the right, as a server does, whatever its configuration says.
    """
    import transformers

    with quietly():  # the class that its configuration names adds nothing to the file
        tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(files, local_files_only=True)
    tokenizer.deprecation_warnings["Asking-to-pad-a-fast-tokenizer"] = True
    tokenizer.truncation_side = tokenizer.padding_side = "right"
    return tokenizer


def _rows(path: Path, split: str, labels: list[str]) -> Rows:
    file = path / "data" / f"{split}.parquet"
    try:
        table = pq.read_table(file, columns=["text", "label"])
    except (OSError, pa.ArrowInvalid, KeyError) as error:
        raise ExportError(f"{file} can't be read as a table of text and label: {first_line(error)}.") from error
    known = {label: number for number, label in enumerate(labels)}
    names = table["label"].to_pylist()
    unknown = sorted({str(name) for name in names if name not in known})
    if unknown:
        raise ExportError(
            f"{file} has the label {unknown[0]!r}, which is not one of the model's: {', '.join(labels[:12])}. "
            "The splits and the weights are of two models."
        )
    if not names:
        raise ExportError(f"{file} has no rows, and export needs them to calibrate, to distil and to judge.")
    texts = table["text"].to_pylist()
    if not all(isinstance(text, str) for text in texts):
        raise ExportError(f"{file} has a row whose text is not text.")
    return Rows(texts, np.array([known[name] for name in names], dtype=np.int64))


def _logits(path: Path, split: str, rows: int, labels: int) -> FloatArray:
    file = path / "logits" / f"{split}.npy"
    try:
        logits = np.load(file, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise ExportError(f"{file} can't be read: {first_line(error)}.") from error
    if logits.shape != (rows, labels):
        raise ExportError(
            f"{file} has the shape {logits.shape}; {split} has {rows} rows and the model {labels} labels."
        )
    if not np.isfinite(logits).all():
        raise ExportError(f"{file} has values that are not finite: the model overflows. Train it anew.")
    found: FloatArray = logits.astype(np.float32, copy=False)
    return found
