"""Structures: a model's graph, its tokenizer and, of a student, its weights, in a folder, whole or not at all.

    checkpoint/      a student's: what `save_pretrained` writes and the tokenizer's files
    logits/dev.npy   a student's own answers in fp32, that its quantized forms are held against
    tokenizer/       what a server tokenizes with
    model.onnx       the graph, rewritten for inference
    structure.json   how it was made

A structure is what precisions and engines are tried on: the dense checkpoint, or a student that was cut out of it.
"""

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from export.distillation import teach
from export.graph import export_onnx, input_names
from export.rewrites import rewrite
from export.rewrites.token_types import sends_only_zeros
from export.search.finished import read_note, write_note
from export.search.plans import DENSE
from export.source import Source, tokenizer_of
from slipway.bundle import TOKENIZER, BundleSpec, Tokenization
from slipway.progress import progress

FloatArray = npt.NDArray[np.float32]

_STRUCTURE = "structure.json"


@dataclass(frozen=True)
class Structure:
    """A model's graph in fp32, rewritten for inference, and the tokenizer that goes with it."""

    name: str
    model: Path
    tokenizer: Path
    spec: BundleSpec
    """Without targets."""
    how: dict[str, Any]
    """How it was made: cut, distillation, figures of its training."""
    dev_logits: FloatArray
    """Of its PyTorch weights in fp32, `[rows, labels]`."""
    checkpoint: Path | None = None
    """Folder of the student's weights; None for the dense checkpoint."""


def dense_structure(source: Source, folder: Path) -> Structure:
    """The checkpoint as it is, as a structure in `folder/dense`."""
    from slipway.pruned import load_classifier

    own = folder / DENSE
    return load(DENSE, own, source) or write(
        DENSE, load_classifier(source.path), source.path, {"structure": DENSE}, source, own
    )


def load(name: str, folder: Path, source: Source) -> Structure | None:
    """The structure in `folder` if one was finished there, else None."""
    found = read_note(folder, _STRUCTURE)
    if found is None:
        return None
    checkpoint = folder / "checkpoint"
    return Structure(
        name=name,
        model=folder / "model.onnx",
        tokenizer=folder / "tokenizer" / TOKENIZER,
        spec=BundleSpec.model_validate(found["spec"]),
        how=found["how"],
        checkpoint=checkpoint if checkpoint.is_dir() else None,
        dev_logits=source.dev_logits if name == DENSE else np.load(folder / "logits" / "dev.npy", allow_pickle=False),
    )


def write(name: str, model: Any, tokenizer_files: Path, how: dict[str, Any], source: Source, folder: Path) -> Structure:
    """Write `model` as a structure: graph, tokenizer and, unless it is the dense one, weights and answers to dev."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        _copy_tokenizer(tokenizer_files, scratch / "tokenizer")
        if name != DENSE:
            model.save_pretrained(scratch / "checkpoint", safe_serialization=True)
            _copy_tokenizer(tokenizer_files, scratch / "checkpoint")
            (scratch / "logits").mkdir()
            answers = _logits(model, tokenizer_files, source.dev.texts, source.max_tokens)
            np.save(scratch / "logits" / "dev.npy", answers, allow_pickle=False)
        with progress(f"Writing {name} as ONNX"):
            plain = scratch / "plain.onnx"
            export_onnx(model, source.task, plain)
            zeros = sends_only_zeros(tokenizer_files / TOKENIZER, tokenizer_of(tokenizer_files).pad_token_type_id)
            assuming = {"token_types"} if zeros else set()
            how = how | {"rewrites": rewrite(plain, scratch / "model.onnx", assuming=assuming)}
            plain.unlink()
        spec = _spec(source, tokenizer_files, model, input_names(scratch / "model.onnx"))
        write_note(scratch, _STRUCTURE, {"how": how, "spec": spec.model_dump(mode="json")})
        shutil.rmtree(folder, ignore_errors=True)
        scratch.rename(folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    structure = load(name, folder, source)
    assert structure is not None, "it was just written"  # noqa: S101
    return structure


def student_logits(student: Structure, texts: Sequence[str]) -> FloatArray:
    """Logits `[texts, labels]` of a student's PyTorch weights, fp32."""
    from slipway.pruned import load_classifier

    assert student.checkpoint is not None, "a student has weights of its own"  # noqa: S101
    return _logits(load_classifier(student.checkpoint), student.checkpoint, texts, student.spec.tokenization.max_tokens)


def _logits(model: Any, tokenizer_files: Path, texts: Sequence[str], max_tokens: int) -> FloatArray:
    return teach(model, tokenizer_of(tokenizer_files), texts, max_tokens=max_tokens, precision="fp32").logits


def _spec(source: Source, tokenizer_files: Path, model: Any, inputs: list[str]) -> BundleSpec:
    tokenizer = tokenizer_of(tokenizer_files)
    return BundleSpec(
        name=source.checkpoint.manifest.name,
        task=source.task,
        labels=source.labels,
        tokenization=Tokenization(
            max_tokens=source.max_tokens,
            pad_token=tokenizer.pad_token,
            pad_id=tokenizer.pad_token_id if model.config.pad_token_id is None else model.config.pad_token_id,
            pad_type_id=tokenizer.pad_token_type_id,
            inputs=inputs,  # pydantic refuses one that it does not know
        ),
        targets={},
        checks=[],
    )


def _copy_tokenizer(files: Path, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    for name in (TOKENIZER, "tokenizer_config.json", "special_tokens_map.json"):
        if (files / name).is_file():
            shutil.copyfile(files / name, out / name)
