"""PyTorch to ONNX.

optimum-onnx traces the model (TorchScript, eager attention) with dynamic batch and sequence axes; it knows the inputs
of every family, so nothing here does. What it lacks is added: DeBERTa's branches on whether queries and keys have the
same length, which they always have in a classifier, are resolved before tracing, as OpenVINO can't run an `If` of
unknown rank; the axes get the names `batch` and `sequence`; a family that no test covers is refused.

Against it: torch's own exporter (dynamo) needs no table of families, but its graph of attention is one that neither
ONNX Runtime's fusions nor our rewrites recognize, and optimum-onnx holds transformers below 4.58.

Operator set 17 is the first with LayerNormalization as one operator, and both engines have a kernel for it. Set 20
would have Gelu as one, too; both engines recognize its five operators when they load the file, so it gains nothing, and
ONNX Runtime's quantizer and transformer tools know 17 best.
"""

import contextlib
import copy
import logging
import os
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from slipway.errors import ExportError
from slipway.tasks import get_task

OPSET = 17

FAMILIES = (
    "albert",
    "bert",
    "camembert",
    "deberta",
    "deberta-v2",
    "distilbert",
    "electra",
    "gpt2",
    "llama",
    "mistral",
    "modernbert",
    "mpnet",
    "qwen2",
    "qwen3",
    "roberta",
    "xlm-roberta",
)
"""The `model_type`s that are tested: parity with PyTorch on ONNX Runtime and OpenVINO. DeBERTa v3 is a `deberta-v2`."""

_MOST_BYTES = 2**31 - 2**24
"""An ONNX file is one protobuf message, which holds 2 GiB; the graph beside the weights takes less than 16 MiB."""


def export_onnx(model: Any, task: str, out: Path) -> Path:
    """Write `model`, a `transformers` classifier (dense or pruned; it is left as it is), in fp32 to the file `out`.

    Inputs are int64 `[batch, sequence]`: `input_ids`, `attention_mask`, and `token_type_ids` where the family has it.
    The output is `logits`, float32 `[batch, labels]`. The weights are in memory twice meanwhile.

    Raises `ExportError` if the family is not one of `FAMILIES`, if a decoder has no padding token, if the model is too
    large for one file, or if the exporter fails.
    """
    from optimum.exporters.onnx.convert import export_pytorch
    from optimum.exporters.tasks import TasksManager

    require_exportable(model)
    export_task = get_task(task).export_task
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        with quietly(), _equal_lengths(), tempfile.TemporaryDirectory(dir=out.parent) as work:
            traced = copy.deepcopy(model).float().eval()
            _attend_eagerly(traced)
            configuration = TasksManager.get_exporter_config_constructor(
                exporter="onnx", model_type=_family(model), task=export_task, library_name="transformers"
            )(traced.config)
            plain = Path(work) / "model.onnx"
            export_pytorch(traced, configuration, OPSET, plain)
            _rename_axes(plain, {"batch_size": "batch", "sequence_length": "sequence"})
            plain.replace(out)
    except OSError:
        raise
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ExportError(f"the {_family(model)} model can't be exported to ONNX: {reason}") from error
    return out


def require_exportable(model: Any) -> None:
    """Raise `ExportError` if `export_onnx` would not take `model`."""
    family = _family(model)
    if family not in FAMILIES:
        raise ExportError(
            f"models of the family {family!r} can't be exported; supported are: {', '.join(FAMILIES)}. "
            "Fine-tune a base of one of these."
        )
    if family in {"gpt2", "llama", "mistral", "qwen2", "qwen3"} and model.config.pad_token_id is None:
        raise ExportError(
            f"the {family} model has no padding token, so its last token in a batch can't be found; "
            "set pad_token_id in its config.json."
        )
    size = 4 * sum(parameter.numel() for parameter in model.parameters())
    if size > _MOST_BYTES:
        raise ExportError(
            f"the model has {size / 2**30:.1f} GiB of fp32 weights, and one ONNX file holds 2 GiB; take a smaller base."
        )


def _attend_eagerly(model: Any) -> None:
    """The graph of `sdpa` has twice the nodes, and none of the fusions and rewrites for attention find it."""
    model.set_attn_implementation("eager")
    if any("Sdpa" in type(module).__name__ for module in model.modules()):
        # Families that choose a class when they are built can't be switched later.
        raise ValueError('its attention is "sdpa"; load it with attn_implementation="eager"')


def _family(model: Any) -> str:
    """The `model_type` of the encoder or decoder inside: a pruned classifier may have one of its own."""
    outer: str = model.config.model_type
    return outer if outer in FAMILIES else str(model.base_model.config.model_type)


def _rename_axes(model: Path, names: dict[str, str]) -> None:
    import onnx

    proto = onnx.load(str(model))
    for value in (*proto.graph.input, *proto.graph.output, *proto.graph.value_info):
        for axis in value.type.tensor_type.shape.dim:
            if axis.dim_param in names:
                axis.dim_param = names[axis.dim_param]
    onnx.save(proto, str(model))


@contextlib.contextmanager
def _equal_lengths() -> Iterator[None]:
    """Resolve DeBERTa's branches for self-attention, where queries and keys are the same tokens."""
    from transformers.models.deberta import modeling_deberta
    from transformers.models.deberta_v2 import modeling_deberta_v2

    def build_rpos(query: Any, key: Any, positions: Any, *sizes: Any) -> Any:  # noqa: ARG001
        return positions

    def uneven_size_corrected(scores: Any, query: Any, key: Any, positions: Any) -> Any:  # noqa: ARG001
        return scores

    patches = [
        (modeling_deberta, build_rpos),
        (modeling_deberta, uneven_size_corrected),
        (modeling_deberta_v2, build_rpos),
    ]
    originals = [(module, patch.__name__, getattr(module, patch.__name__)) for module, patch in patches]
    for module, patch in patches:
        setattr(module, patch.__name__, patch)
    try:
        yield
    finally:
        for module, name, original in originals:
            setattr(module, name, original)


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
