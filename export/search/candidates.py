"""One variant, made and judged by what it answers: quantize a structure's graph, ask it the whole of dev, keep both.

A candidate's folder is laid out as the bundle will be, so what is measured is what is shipped: the same file, opened by
the same `Predictor`, on the same engine. It is written beside its place and renamed when its answers are in it, so that
a search that is stopped finds whole candidates or none. Speed is not measured here: it is compared in one run, alone on
the machine, while candidates may be made several at a time (each is one process with `threads` threads).
"""

import os
import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from export.search.finished import read_note, write_note
from export.search.plans import Trial
from export.search.structures import Structure
from slipway.bundle import TOKENIZER, BundleSpec, Target
from slipway.errors import ExportError
from slipway.predictor import Encoder, Predictor

FloatArray = npt.NDArray[np.float32]

_LOGITS = "logits.npy"
_MADE = "made.json"
_CHUNK = 256


@dataclass(frozen=True)
class Candidate:
    """A made variant on disk: `folder/<target>/model.onnx`, `folder/tokenizer.json`, and its answers to dev."""

    trial: Trial
    structure: Structure
    folder: Path
    target_name: str
    target: Target
    logits: FloatArray
    """On dev, `[rows, labels]`, as the served model gives them."""
    how: dict[str, Any]

    @property
    def model(self) -> Path:
        """The ONNX file."""
        return self.folder / self.target.model

    @property
    def spec(self) -> BundleSpec:
        """What the bundle will say, with this candidate's target."""
        return self.structure.spec.model_copy(update={"targets": {self.target_name: self.target}})


@dataclass(frozen=True)
class Job:
    """Makes the candidate in `folder`, or takes it as it is there, when called; can be sent to another process."""

    trial: Trial
    structure: Structure
    target_name: str
    """`cpu` or `gpu`."""
    folder: Path
    calibration: tuple[str, ...]
    """Training texts that set the ranges of activations."""
    dev: tuple[str, ...]
    """Texts that it has to answer."""
    threads: int
    """Of its sessions."""

    def __call__(self) -> Candidate:
        """The candidate; raises `ExportError` if this variant can't be made of this structure."""
        finished = load(self.trial, self.structure, self.target_name, self.folder, self.threads)
        if finished is not None:
            return finished
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{self.folder.name}.", dir=self.folder.parent))
        try:
            self._write(scratch)
            shutil.rmtree(self.folder, ignore_errors=True)
            scratch.rename(self.folder)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        candidate = load(self.trial, self.structure, self.target_name, self.folder, self.threads)
        assert candidate is not None, "it was just written"  # noqa: S101
        return candidate

    def _write(self, scratch: Path) -> None:
        target = _target(self.trial, self.target_name, self.threads)
        (scratch / target.model).parent.mkdir(parents=True)
        shutil.copyfile(self.structure.tokenizer, scratch / TOKENIZER)
        how = self._quantize(scratch / target.model)
        spec = self.structure.spec.model_copy(update={"targets": {self.target_name: target}})
        predictor = Predictor(scratch, spec, target)
        parts = [predictor.logits(self.dev[start : start + _CHUNK]) for start in range(0, len(self.dev), _CHUNK)]
        logits = np.concatenate(parts)
        if not np.isfinite(logits).all():
            raise ExportError("its answers to dev are not all finite: the model overflows at this precision.")
        np.save(scratch / _LOGITS, logits, allow_pickle=False)
        write_note(scratch, _MADE, {"how": how})

    def _quantize(self, out: Path) -> dict[str, Any]:
        from export.quantization import QUANTIZERS

        precision = self.trial.precision
        quantizer = QUANTIZERS[precision.quantizer]
        there = self._other_engines_file()
        if there is not None:
            shutil.copyfile(there, out)
        else:
            encode = Encoder(self.structure.tokenizer, self.structure.spec.tokenization)
            quantizer.quantize(self.structure.model, out, [encode([text]) for text in self.calibration])
        return {
            "structure": self.structure.how,
            "quantizer": precision.quantizer,
            "calibration_texts": len(self.calibration),
            "engine": precision.engine,
        }

    def _other_engines_file(self) -> Path | None:
        """What the same quantizer made of the structure for another engine: one file runs on all of them."""
        from export.quantization import QUANTIZERS

        precision = self.trial.precision
        for engine in QUANTIZERS[precision.quantizer].engines:
            other = replace(self.trial, precision=replace(precision, engine=engine))
            found = load(other, self.structure, self.target_name, self.folder.with_name(other.name), self.threads)
            if found is not None:
                return found.model
        return None


def load(trial: Trial, structure: Structure, target_name: str, folder: Path, threads: int) -> Candidate | None:
    """The candidate in `folder` if one was finished there, of this very structure; else None.

    It runs with `threads`, whoever made it.
    """
    made = read_note(folder, _MADE)
    if made is None or made["how"]["structure"] != structure.how:
        return None
    return Candidate(
        trial=trial,
        structure=structure,
        folder=folder,
        target_name=target_name,
        target=_target(trial, target_name, threads),
        logits=np.load(folder / _LOGITS, allow_pickle=False),
        how=made["how"],
    )


def copy_into(candidate: Candidate, bundle: Path) -> None:
    """Copy what is shipped of the candidate, its model and its tokenizer, into the bundle being written."""
    model = bundle / candidate.target.model
    model.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(candidate.model, model)
    shutil.copyfile(candidate.folder / TOKENIZER, bundle / TOKENIZER)


def _target(trial: Trial, target_name: str, threads: int) -> Target:
    from export.quantization import QUANTIZERS
    from slipway.engines import defaults

    quantizer = QUANTIZERS[trial.precision.quantizer]
    engine = trial.precision.engine
    return Target(
        model=f"{target_name}/model.onnx",
        precision=quantizer.precision,
        engine=engine,
        batch_invariant=quantizer.batch_invariant,
        threads=threads,
        instances=max(1, (os.cpu_count() or 1) // threads) if target_name == "cpu" else 1,
        **defaults(engine),
    )
