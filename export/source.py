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

from slipway.artifacts import Artifact, read_artifact
from slipway.bundle import TOKENIZER
from slipway.errors import ExportError
from slipway.tasks import get_task

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]


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
        _require_tokenizer(path)
        config = checkpoint.json("config.json")
        names = config.get("id2label") or {}
        labels = [names.get(str(index), "") for index in range(len(names))]
        if len(labels) < 2 or "" in labels:
            raise ExportError(f"{path / 'config.json'} has no id2label with a name for each of at least two classes.")
        recipe = checkpoint.manifest.recipe
        train, dev = (_rows(path, name, labels) for name in ("train", "dev"))
        return cls(
            checkpoint=checkpoint,
            task=recipe["task"],
            labels=labels,
            max_tokens=recipe["train"]["max_tokens"],
            train=train,
            dev=dev,
            dev_logits=_logits(path, "dev", len(dev.texts), len(labels)),
        )

    @property
    def path(self) -> Path:
        """Where the checkpoint is."""
        return self.checkpoint.path

    @cached_property
    def dense_dev(self) -> dict[str, Any]:
        """Metrics of the dense model on dev."""
        return get_task(self.task).evaluate(self.dev_logits, self.dev.targets, self.labels)

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


def _rows(path: Path, split: str, labels: list[str]) -> Rows:
    file = path / "data" / f"{split}.parquet"
    try:
        table = pq.read_table(file, columns=["text", "label"])
    except (OSError, pa.ArrowInvalid, KeyError) as error:
        raise ExportError(f"{file} can't be read as a table of text and label: {_first_line(error)}.") from error
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
        raise ExportError(f"{file} can't be read: {_first_line(error)}.") from error
    if logits.shape != (rows, labels):
        raise ExportError(
            f"{file} has the shape {logits.shape}; {split} has {rows} rows and the model {labels} labels."
        )
    if not np.isfinite(logits).all():
        raise ExportError(f"{file} has values that are not finite: the model overflows. Train it anew.")
    found: FloatArray = logits.astype(np.float32, copy=False)
    return found


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
