"""PyTorch to ONNX, and fusion of the graph.

optimum-onnx traces the checkpoint with dynamic batch and sequence axes; it knows the inputs of every encoder family, so
nothing here does. Fusion (attention, layer norm, GELU as one node each) is ONNX Runtime's own transformer optimizer,
run ahead of time. The same fusions also happen when a session loads the plain graph, so `fused` buys load time rather
than latency on some models, and its int8 form can be slower, since a fused attention is quantized as one coarse node;
both forms are therefore variants that are measured, and neither is assumed.
"""

import contextlib
import logging
import os
import warnings
from collections.abc import Iterator
from pathlib import Path

from slipway.errors import ExportError
from slipway.tasks import get_task


def export_onnx(checkpoint: Path, task: str, folder: Path) -> Path:
    """Export the checkpoint in fp32 to `folder/model.onnx`, axes `batch` and `sequence` dynamic.

    Raises `ExportError` if the exporter doesn't know the architecture or fails.
    """
    from optimum.exporters.onnx import main_export

    try:
        with quietly():
            main_export(
                str(checkpoint),
                output=folder,
                task=get_task(task).export_task,
                do_validation=False,  # parity is asserted on real texts, later
                local_files_only=True,
                trust_remote_code=False,
                device="cpu",
            )
    except OSError:
        raise
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ExportError(f"{checkpoint} can't be exported to ONNX: {reason}") from error
    return folder / "model.onnx"


def fuse(model: Path, architecture: str, heads: int, hidden: int, out: Path) -> Path:
    """Fuse the graph of `model` for an `architecture` (a config's `model_type`) and write it to `out`.

    Raises `ExportError` if the optimizer has no fusions for it.
    """
    from onnxruntime.transformers import optimizer

    known = {"bert", "gpt2", "bart", "clip", "t5", "vit"}
    # Encoders that differ from BERT by their embeddings or position scheme only.
    like_bert = {
        "roberta",
        "xlm-roberta",
        "camembert",
        "distilbert",
        "electra",
        "albert",
        "mpnet",
        "deberta",
        "deberta-v2",
    }
    family = architecture if architecture in known else "bert" if architecture in like_bert else None
    if family is None:
        raise ExportError(f"there are no graph fusions for {architecture}")
    with quietly():
        optimized = optimizer.optimize_model(
            str(model), model_type=family, num_heads=heads, hidden_size=hidden, opt_level=0
        )
        optimized.save_model_to_file(str(out))
    return out


def input_names(model: Path) -> list[str]:
    """Names of the graph's inputs, in order."""
    import onnx

    return [value.name for value in onnx.load(str(model), load_external_data=False).graph.input]


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Hold back what the exporters say to their own developers."""
    levels = {name: logging.getLogger(name).level for name in ("root", "onnxruntime", "optimum", "transformers")}
    with (
        warnings.catch_warnings(),
        Path(os.devnull).open("w") as nowhere,
        contextlib.redirect_stdout(nowhere),
    ):
        warnings.simplefilter("ignore")
        for name in levels:
            logging.getLogger(None if name == "root" else name).setLevel(logging.ERROR)
        try:
            yield
        finally:
            for name, level in levels.items():
                logging.getLogger(None if name == "root" else name).setLevel(level)
