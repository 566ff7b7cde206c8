"""The export stage: make each variant, measure it against the dense checkpoint, pass the gate, write the bundle."""

import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from export.gate import choose, judge
from export.graph import export_onnx, fuse, input_names
from export.measurement import dense_model, interleaved_latencies, onnx_model, spread_by_length
from export.quantization import quantize_int8
from slipway.artifacts import Artifact, inputs_digest, read_artifact, write_artifact
from slipway.bundle import (
    EXPECTED,
    FRONTIER,
    SPEC,
    TOKENIZER,
    BundleSpec,
    Check,
    Target,
    Tokenization,
    Variant,
)
from slipway.errors import ExportError
from slipway.predictor import Encoder, Prediction, Predictor, open_session
from slipway.progress import progress, say
from slipway.recipe import Export
from slipway.tasks import get_task
from slipway.tasks.metrics import softmax

FloatArray = npt.NDArray[np.float32]

_MODEL = "cpu/model.onnx"
_LATENCY_TEXTS = 100

# What a server asks itself before it is ready. Not from the data: a bundle may have to leave texts out.
_CHECK_TEXTS = (
    "This is excellent.",
    "It was terrible, a waste of money.",
    "The report is due on Friday.",
    "这部电影很好看。",
    "👍",
)


@dataclass(frozen=True)
class _Candidate:
    """A variant on disk, laid out as a bundle: `folder/cpu/model.onnx`, `folder/tokenizer.json`."""

    name: str
    folder: Path
    spec: BundleSpec

    @property
    def target(self) -> Target:
        return self.spec.targets["cpu"]


@dataclass(frozen=True)
class _Source:
    """The dense checkpoint and the rows it is held against."""

    checkpoint: Artifact
    task: str
    config: dict[str, Any]
    labels: list[str]
    max_tokens: int
    dev_texts: list[str]
    dev_targets: npt.NDArray[np.int64]
    dev_logits: FloatArray


def export_inputs(checkpoint: Artifact, section: Export) -> str:
    """Digest of everything that the bundle depends on; see `slipway.artifacts.inputs_digest`."""
    return inputs_digest("export", {"export": section.model_dump(mode="json")}, [checkpoint])


def export(checkpoint_path: Path, out: Path, section: Export) -> Artifact:
    """Make the bundle of the checkpoint at `checkpoint_path`.

    Raises `GateError` if no variant passes, and then writes nothing.
    """
    checkpoint = read_artifact(checkpoint_path, "checkpoint")
    source = _read_source(checkpoint)
    work = Path(tempfile.mkdtemp(prefix="slipway-export-"))
    try:
        candidates = _make_candidates(source, section, work)
        dense = get_task(source.task).evaluate(source.dev_logits, source.dev_targets, source.labels)
        latencies = _latencies(source, candidates, section)
        variants = choose(_measure(source, candidates, section, dense, latencies))
        chosen = next(variant for variant in variants if variant.chosen)
        candidate = next(candidate for candidate in candidates if candidate.name == chosen.name)
        reference = _reference_row(source, section, dense, latencies["pytorch"])
        return _write_bundle(source, candidate, [reference, *variants], section, out)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _read_source(checkpoint: Artifact) -> _Source:
    recipe = checkpoint.manifest.recipe
    config = checkpoint.json("config.json")
    labels = [config["id2label"][str(index)] for index in range(len(config["id2label"]))]
    dev = pq.read_table(checkpoint.path / "data" / "dev.parquet")
    return _Source(
        checkpoint=checkpoint,
        task=recipe["task"],
        config=config,
        labels=labels,
        max_tokens=recipe["train"]["max_tokens"],
        dev_texts=dev["text"].to_pylist(),
        dev_targets=np.array([labels.index(label) for label in dev["label"].to_pylist()], dtype=np.int64),
        dev_logits=np.load(checkpoint.path / "logits" / "dev.npy", allow_pickle=False),
    )


def _make_candidates(source: _Source, section: Export, work: Path) -> list[_Candidate]:
    """Every variant of the recipe, in its order; one that this architecture can't have is left out, saying so."""
    plain = work / "plain" / "model.onnx"
    fused = work / "fused.onnx"
    config = source.config

    def make_fused() -> Path:
        heads = config.get("num_attention_heads", config.get("n_heads", 0))
        hidden = config.get("hidden_size", config.get("dim", 0))
        return fused if fused.exists() else fuse(plain, config["model_type"], heads, hidden, fused)

    makers: dict[str, Callable[[Path], Path]] = {
        "fp32": lambda out: Path(shutil.copyfile(plain, out)),
        "fused": lambda out: Path(shutil.copyfile(make_fused(), out)),
        "int8": lambda out: quantize_int8(plain, out),
        "int8-fused": lambda out: quantize_int8(make_fused(), out),
    }
    candidates = []
    with progress("Exporting to ONNX", len(section.variants) + 1) as advance:
        export_onnx(source.checkpoint.path, source.task, plain.parent)
        spec = _spec(source, input_names(plain))
        advance(1)
        for name in dict.fromkeys(section.variants):
            folder = work / name
            (folder / "cpu").mkdir(parents=True)
            shutil.copyfile(source.checkpoint.path / TOKENIZER, folder / TOKENIZER)
            try:
                makers[name](folder / _MODEL)
            except ExportError as error:
                say(f"  {name} is left out: {error}")
                continue
            int8 = name.startswith("int8")
            target = Target(
                model=_MODEL,
                precision="int8" if int8 else "fp32",
                batch_invariant=not int8,
                threads=section.threads,
            )
            candidates.append(_Candidate(name, folder, spec.model_copy(update={"targets": {"cpu": target}})))
            advance(1)
    if not candidates:
        raise ExportError("none of export.variants can be made for this architecture")
    return candidates


def _spec(source: _Source, inputs: list[str]) -> BundleSpec:
    tokenizer = source.checkpoint.json("tokenizer_config.json")
    pad_token = tokenizer["pad_token"]
    pad_token = pad_token["content"] if isinstance(pad_token, dict) else pad_token
    return BundleSpec(
        name=source.checkpoint.manifest.name,
        task=source.task,
        labels=source.labels,
        tokenization=Tokenization(
            max_tokens=source.max_tokens,
            pad_token=pad_token,
            pad_id=source.config.get("pad_token_id") or 0,
            pad_type_id=tokenizer.get("pad_token_type_id", 0),
            inputs=inputs,  # pydantic refuses one that it does not know
        ),
        targets={},
        checks=[],
    )


def _measure(
    source: _Source,
    candidates: list[_Candidate],
    section: Export,
    dense: dict[str, Any],
    latencies: dict[str, dict[str, float]],
) -> list[Variant]:
    task = get_task(source.task)
    variants = []
    for candidate in candidates:
        # Answers to batches take all cores; those of one text at a time have nothing to share among them.
        threads = os.cpu_count() if candidate.target.batch_invariant else None
        logits = _predict(candidate, source.dev_texts, f"Accuracy of {candidate.name} (dev)", threads).logits
        dev = task.evaluate(logits, source.dev_targets, source.labels)
        variant = Variant(
            name=candidate.name,
            precision=candidate.target.precision,
            engine=candidate.target.engine,
            bytes=(candidate.folder / _MODEL).stat().st_size,
            metric=section.metric,
            dev=dev,
            loss_points=round(100 * (dense[section.metric] - dev[section.metric]), 3),
            agreement=float((logits.argmax(1) == source.dev_logits.argmax(1)).mean()),
            max_logit_difference=float(np.abs(logits - source.dev_logits).max()),
            latency_ms=latencies[candidate.name],
            speedup=round(latencies["pytorch"]["p50"] / latencies[candidate.name]["p50"], 3),
            passed=False,
            verdict="",
        )
        variants.append(judge(variant, section))
    return variants


def _latencies(source: _Source, candidates: list[_Candidate], section: Export) -> dict[str, dict[str, float]]:
    encode = Encoder(source.checkpoint.path / TOKENIZER, candidates[0].spec.tokenization)
    rows = spread_by_length(source.dev_texts, _LATENCY_TEXTS)
    inputs = [encode([source.dev_texts[row]]) for row in rows]
    auto_model = get_task(source.task).auto_model
    with dense_model(source.checkpoint.path, auto_model, section.threads) as dense:
        runs = {"pytorch": dense}
        for candidate in candidates:
            runs[candidate.name] = onnx_model(open_session(candidate.folder / _MODEL, section.threads))
        return interleaved_latencies(runs, inputs)


def _predict(candidate: _Candidate, texts: list[str], label: str, threads: int | None = None) -> Prediction:
    """Answers with the very code and, unless told, the very threads that the server will use."""
    predictor = Predictor(candidate.folder, candidate.spec, candidate.target, threads=threads)
    parts = []
    chunk = 256
    with progress(label, len(texts)) as advance:
        for start in range(0, len(texts), chunk):
            parts.append(predictor.predict(texts[start : start + chunk]))
            advance(len(parts[-1].labels))
    return Prediction(
        [name for part in parts for name in part.labels],
        np.concatenate([part.scores for part in parts]),
        np.concatenate([part.logits for part in parts]),
    )


def _reference_row(source: _Source, section: Export, dense: dict[str, Any], latency: dict[str, float]) -> Variant:
    """The dense checkpoint as a row of the frontier."""
    weights = sum(file.stat().st_size for file in source.checkpoint.path.glob("*.safetensors"))
    return Variant(
        name="pytorch",
        precision="fp32",
        engine="pytorch",
        bytes=weights,
        metric=section.metric,
        dev=dense,
        loss_points=0.0,
        agreement=1.0,
        max_logit_difference=0.0,
        latency_ms=latency,
        speedup=1.0,
        passed=False,
        verdict="the reference",
    )


def _write_bundle(
    source: _Source, candidate: _Candidate, frontier: list[Variant], section: Export, out: Path
) -> Artifact:
    test = pq.read_table(source.checkpoint.path / "data" / "test.parquet")
    texts, truth = test["text"].to_pylist(), test["label"].to_pylist()
    answers = _predict(candidate, texts, "Accuracy after compression (test)")
    targets = np.array([source.labels.index(label) for label in truth], dtype=np.int64)
    test_metrics = get_task(source.task).evaluate(answers.logits, targets, source.labels)
    dense_test = np.load(source.checkpoint.path / "logits" / "test.npy", allow_pickle=False)
    checks = _predict(candidate, list(_CHECK_TEXTS), "Checks")
    spec = candidate.spec.model_copy(
        update={
            "checks": [
                Check(text=text, label=label, score=float(score))
                for text, label, score in zip(_CHECK_TEXTS, checks.labels, checks.scores, strict=True)
            ]
        }
    )
    chosen = next(variant for variant in frontier if variant.chosen)
    recipe = {"export": section.model_dump(mode="json")}
    with write_artifact(
        out,
        "bundle",
        name=source.checkpoint.manifest.name,
        inputs=export_inputs(source.checkpoint, section),
        parents=[source.checkpoint],
        recipe=recipe,
    ) as draft:
        shutil.copytree(candidate.folder, draft.path, dirs_exist_ok=True)
        draft.write_json(SPEC, spec.model_dump(mode="json"))
        draft.write_json(FRONTIER, [variant.model_dump(mode="json") for variant in frontier])
        draft.write_json(
            "test.json",
            {
                "metrics": test_metrics,
                "agreement": float((answers.logits.argmax(1) == dense_test.argmax(1)).mean()),
            },
        )
        _write_expected(draft.path / EXPECTED, texts, truth, answers, section.test_texts)
        draft.metrics.update(
            {
                "variant": chosen.name,
                "bytes": chosen.bytes,
                "loss_points": chosen.loss_points,
                "agreement": chosen.agreement,
                "latency_p50_ms": chosen.latency_ms["p50"],
                "speedup": chosen.speedup,
                "test_accuracy": test_metrics["accuracy"],
                "test_macro_f1": test_metrics["macro_f1"],
            }
        )
    return read_artifact(out, "bundle", verify=False)


def _write_expected(file: Path, texts: list[str], truth: list[str], answers: Prediction, most: int) -> None:
    probabilities = np.sort(softmax(answers.logits), axis=1)
    pq.write_table(
        pa.table(
            {
                "text": pa.array(texts[:most], pa.string()),
                "label": pa.array(truth[:most], pa.string()),
                "predicted": pa.array(answers.labels[:most], pa.string()),
                "score": pa.array(answers.scores[:most], pa.float32()),
                "margin": pa.array((probabilities[:, -1] - probabilities[:, -2])[:most], pa.float32()),
            }
        ),
        file,
    )
