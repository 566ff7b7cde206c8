"""Heads and neurons as slices of tensors, and the one function that cuts them.

A unit (a head or a feed-forward neuron) owns the same slice in each of several tensors. Where the slice lies takes
three numbers: `dimension`, `width` (neighbouring rows that belong to one unit) and `blocks` (how often the whole
sequence of units is repeated along the dimension: 3 where queries, keys and values are stacked). Every layout of the
supported families is one choice of these:

    separate linears    blocks 1, width d          [h0 h1 h2 …]
    q, k, v stacked     blocks 3, width d          [q0 q1 q2 … k0 k1 k2 … v0 v1 v2 …]
    q, k, v by head     blocks 1, width 3·d        [q0 k0 v0 q1 k1 v1 …]
    gate and up stacked blocks 2, width 1
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Part:
    """One tensor that has a slice for each unit: `getattr(module, name)`."""

    module: Any
    name: str
    dimension: int
    width: int
    blocks: int = 1
    per_token: bool = True
    """Whether it is multiplied with once for each token; a projection of relative positions is not."""


@dataclass(frozen=True)
class Units:
    """All heads, or all neurons, of one layer."""

    count: int
    parts: tuple[Part, ...]
    gate: Any
    """Module whose first input is, along its last axis, unit beside unit: `[batch, tokens, count × width]`."""
    width: int
    sizes: tuple[tuple[Any, str, int], ...] = ()
    """Attributes that hold a size: (module, name, amount for each unit)."""
    fixed: str = ""
    """Why these can't be cut; empty if they can."""
    on_keep: Callable[[Sequence[int]], None] | None = None
    """What else has to follow when only the units with these numbers stay."""

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds per token of one unit, in matrix products with weights."""
        weights = sum(
            getattr(part.module, part.name).numel()
            for part in self.parts
            if part.per_token and getattr(part.module, part.name).dim() == 2
        )
        return int(weights) // self.count


@dataclass(frozen=True)
class Layer:
    """One layer of a model: what can be cut in it and how often it runs in one forward pass."""

    module: Any
    heads: Units
    neurons: Units
    repeats: int = 1


def between(
    producers: Sequence[Part],
    reader: Any,
    width: int,
    *,
    sizes: tuple[tuple[Any, str, int], ...] = (),
    fixed: str = "",
    on_keep: Callable[[Sequence[int]], None] | None = None,
) -> Units:
    """The units that `producers` compute and the linear layer `reader` takes, each `width` of its inputs."""
    part = Part(reader, "weight", 0 if _is_transposed(reader) else 1, width)
    count = reader.weight.shape[part.dimension] // width
    return Units(count, (*producers, part), reader, width, sizes, fixed, on_keep)


def outputs(*modules: Any, width: int, blocks: int = 1, per_token: bool = True) -> tuple[Part, ...]:
    """The slices of units among the outputs of linear layers, their biases included."""
    parts: list[Part] = []
    for module in modules:
        parts.append(Part(module, "weight", 1 if _is_transposed(module) else 0, width, blocks, per_token))
        if module.bias is not None:
            parts.append(Part(module, "bias", 0, width, blocks, per_token))
    return tuple(parts)


def keep_units(units: Units, kept: Sequence[int]) -> None:
    """Cut all but the units with numbers `kept` (rising), in place. Keeping all of them changes nothing."""
    import torch

    if list(kept) == list(range(units.count)):
        return
    for part in units.parts:
        tensor = getattr(part.module, part.name)
        rows = [
            block * units.count * part.width + unit * part.width + row
            for block in range(part.blocks)
            for unit in kept
            for row in range(part.width)
        ]
        index = torch.tensor(rows, device=tensor.device)
        smaller = tensor.detach().index_select(part.dimension, index).contiguous()
        setattr(part.module, part.name, torch.nn.Parameter(smaller, requires_grad=tensor.requires_grad))
        _declare_size(part.module)
    for module, name, amount in units.sizes:
        setattr(module, name, amount * len(kept))
    if units.on_keep is not None:
        units.on_keep(kept)


def _is_transposed(module: Any) -> bool:
    from transformers.pytorch_utils import Conv1D

    return isinstance(module, Conv1D)


def _declare_size(module: Any) -> None:
    """Bring a linear layer's own record of its sizes in line with its weight; Conv1D's forward reads it."""
    import torch

    if _is_transposed(module):
        module.nx, module.nf = module.weight.shape
    elif isinstance(module, torch.nn.Linear):
        module.out_features, module.in_features = module.weight.shape
