"""Quantization-aware fine-tuning: the last resort, when every int8 model loses more than the budget.

The encoder's products are computed on numbers rounded as the static quantizer will round them (export/quantization):
inputs smoothed, then uint8 in a range per tensor; weights scaled to match, then symmetric int8 per output channel. The
gradient passes the rounding as if it were not there (straight-through, Bengio et al. 2013, arXiv:1308.3432) and stops
at what is clipped (Jacob et al. 2018, arXiv:1712.05877). So the weights move to where rounding hurts less, taught by
the dense model at a low rate, for minutes where calibration takes seconds.

What comes out is an ordinary model on which the ordinary quantizer is run: its weights lie on the int8 grid of their
smoothing, and ranges are calibrated anew by the same rule. Learning the ranges, too (LSQ, Esser et al. 2020,
arXiv:1902.08153), is worth its price at 4 bits and fewer, and the quantizer would have to take them from here. Products
of two activations (attention) stay in fp32 here as they do there.

Under bf16 a rounded number is rounded once more, by at most a quarter of its step, while learning; evaluations and what
comes out are not.
"""

import contextlib
import copy
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from export.distillation import Curve, Distillation, Teacher, distil
from export.quantization.ranges import Activation, FloatArray, require_texts, token_rows
from export.quantization.smooth import best_scale
from slipway.errors import ExportError
from slipway.inputs import taken_by

Batch = Mapping[str, npt.NDArray[np.int64]]
Grids = Mapping[str, "Grid"]
"""By name of the module whose product is computed on them."""

SETTINGS = Distillation(epochs=1.0, learning_rate=2e-5)


@dataclass(frozen=True)
class Grid:
    """What the input of a product is rounded to: divided by `smoothing` [inputs], 256 levels from `low` to `high`."""

    low: float
    high: float
    smoothing: FloatArray


@dataclass(frozen=True)
class Adapted:
    """A model whose weights lie on the int8 grid, what it was adapted to, and how that went."""

    model: Any
    grids: Grids
    curve: Curve


def quantization_aware(
    model: Any,
    tokenizer: Any,
    texts: Sequence[str],
    targets: Sequence[int | None] | npt.NDArray[np.int64] | None,
    teacher: Teacher,
    calibration: Sequence[Batch],
    settings: Distillation = SETTINGS,
    *,
    seed: int,
    work: Path,
    keep: Collection[str] = (),
    deadline: float | None = None,
    evaluate: Callable[[Any], float] | None = None,
) -> Adapted:
    """A copy of `model` that loses less when its layers are quantized to int8; `model` stays as it is.

    Args:
        model: a transformers classifier; layers may differ in size.
        tokenizer, texts, targets, teacher, settings, seed, work, deadline: as for `distil`.
        calibration: batches of training texts, from which the grids are taken.
        keep: names of modules that will not be quantized.
        evaluate: is given the model as it computes when quantized. The weights before the first step count, too, so
            by this measure the result is never worse.

    Raises what `distil` raises, and `ExportError` if there are no layers to quantize or no calibration texts.
    """
    adapted = copy.deepcopy(model)
    grids = calibrate(adapted, calibration, keep=keep)
    with fake_quantized(adapted, grids, fold=True):
        curve = distil(
            adapted,
            tokenizer,
            texts,
            targets,
            teacher,
            settings,
            seed=seed,
            work=work,
            deadline=deadline,
            evaluate=evaluate,
        )
    return Adapted(adapted, grids, curve)


def calibrate(model: Any, calibration: Sequence[Batch], *, keep: Collection[str] = ()) -> dict[str, Grid]:
    """The grids of the inputs of all products in `model`'s layers, those of `keep` excepted.

    Raises `ExportError` if there are no such products, or no calibration texts.
    """
    import torch

    products = _products(model, keep)
    require_texts(calibration)
    seen: dict[str, Activation] = {}
    readers: dict[str, list[str]] = {}  # products that read the same tensor, by the first of them
    latest: tuple[str, Any] = ("", None)
    mask: npt.NDArray[np.bool_] = np.ones((1, 1), dtype=bool)

    def look(name: str, inputs: Any) -> None:
        nonlocal latest
        if inputs is latest[1]:
            if name not in readers[latest[0]]:
                readers[latest[0]].append(name)
            return
        latest = (name, inputs)
        readers.setdefault(name, [name])
        rows = token_rows(inputs.float().cpu().numpy(), mask)
        if name in seen:
            seen[name].add(rows)
        else:
            seen[name] = Activation(rows)

    handles = [
        module.register_forward_pre_hook(lambda _, inputs, name=name: look(name, inputs[0]))
        for name, module in products.items()
    ]
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            for batch in calibration:
                mask = batch["attention_mask"].astype(bool)
                model(**{name: torch.from_numpy(array).to(device) for name, array in taken_by(model, batch).items()})
    finally:
        model.train(was_training)
        for handle in handles:
            handle.remove()
    grids: dict[str, Grid] = {}
    for first, names in readers.items():
        weights = [_inputs_first(products[name]).detach().float().cpu().numpy() for name in names]
        scale = best_scale(seen[first], np.concatenate(weights, axis=1))
        scale = np.ones(len(weights[0]), dtype=np.float32) if scale is None else scale
        low, high = float((seen[first].low / scale).min()), float((seen[first].high / scale).max())
        grids |= dict.fromkeys(names, Grid(min(0.0, low), max(0.0, high), scale))
    return grids


@contextlib.contextmanager
def fake_quantized(model: Any, grids: Grids, *, fold: bool = False) -> Iterator[None]:
    """Let the products of `grids` compute as if quantized, while the context lasts.

    With `fold`, the weights that are left behind lie on their int8 grid; otherwise they are as they were.
    """
    import torch
    from torch.nn.utils import parametrize

    modules = {name: model.get_submodule(name) for name in grids}
    handles = []
    try:
        for name, module in modules.items():
            inputs_axis = 1 if isinstance(module, torch.nn.Linear) else 0
            smoothing = torch.from_numpy(grids[name].smoothing).to(module.weight.device)
            # As a child it is in the state, and so in the fingerprint of the run.
            module.input_grid = _input_grid(grids[name], smoothing)
            parametrize.register_parametrization(module, "weight", _weight_grid(smoothing, inputs_axis))
            handles.append(module.register_forward_pre_hook(lambda owner, inputs: (owner.input_grid(inputs[0]),)))
        yield
    finally:
        for handle in handles:
            handle.remove()
        for module in modules.values():
            if parametrize.is_parametrized(module, "weight"):
                parametrize.remove_parametrizations(module, "weight", leave_parametrized=fold)
                if fold:
                    _inputs_first(module).data.div_(module.input_grid.smoothing[:, None])
            if hasattr(module, "input_grid"):
                del module.input_grid


def _products(model: Any, keep: Collection[str]) -> dict[str, Any]:
    """The modules that multiply by a weight in a layer of the encoder: those whose path in it has a number."""
    from torch.nn import Linear
    from transformers.pytorch_utils import Conv1D

    encoder = set(model.base_model.modules())
    found = {
        name: module
        for name, module in model.named_modules()
        if module in encoder and isinstance(module, Linear | Conv1D) and any(map(str.isdigit, name.split(".")))
    }
    unknown = set(keep) - set(found)
    if unknown:
        raise ExportError(f"keep names {min(unknown)}, which is no product of the encoder's layers; e.g. {min(found)}")
    if found.keys() <= set(keep):
        raise ExportError(f"this {model.config.model_type} has no products in its layers left to quantize")
    return {name: module for name, module in found.items() if name not in keep}


def _inputs_first(module: Any) -> Any:
    """The weight as [inputs, outputs], as `Conv1D` of GPT-2 has it; `Linear` has it the other way round."""
    from torch.nn import Linear

    return module.weight.T if isinstance(module, Linear) else module.weight


def _weight_grid(smoothing: Any, inputs_axis: int) -> Any:
    """Scales a weight for smoothed inputs and rounds it to symmetric int8 for each output."""
    import torch

    class WeightGrid(torch.nn.Module):  # type: ignore[misc]
        def forward(self, weight: Any) -> Any:
            weight = weight.float() * (smoothing if inputs_axis else smoothing[:, None])
            step = weight.detach().abs().amax(inputs_axis).div(127).clamp_min(1e-12)
            zeros = torch.zeros_like(step, dtype=torch.int32)
            return torch.fake_quantize_per_channel_affine(weight, step, zeros, 1 - inputs_axis, -127, 127)

    return WeightGrid()


def _input_grid(grid: Grid, smoothing: Any) -> Any:
    """Smooths inputs and rounds them to uint8; 0 has a level of its own."""
    import torch

    class InputGrid(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            step = max(grid.high - grid.low, 1e-12) / 255
            self.register_buffer("smoothing", smoothing)
            self.register_buffer("step", torch.tensor(step, dtype=torch.float32, device=smoothing.device))
            self.register_buffer(
                "zero", torch.tensor(round(-grid.low / step), dtype=torch.int32, device=smoothing.device)
            )

        def forward(self, inputs: Any) -> Any:
            return torch.fake_quantize_per_tensor_affine(inputs.float() / self.smoothing, self.step, self.zero, 0, 255)

    return InputGrid()
