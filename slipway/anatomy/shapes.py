"""What is left of each layer: the sizes that a config must carry so that a pruned model can be built again."""

from collections.abc import Sequence
from dataclasses import dataclass

from slipway.errors import ExportError


@dataclass(frozen=True)
class LayerShape:
    """Sizes of one layer, in numbers of the dense model.

    `source` is the layer's number in the dense model, however often the model was cut since. `heads` counts what
    goes as one: a head, or, where queries share keys and values in groups, a group. `head_sources` are their numbers
    in the dense layer (empty: the first ones), which a position bias that all layers share is looked up by. `repeats`
    is how often the layer runs in one forward pass, more than once where layers share weights.
    """

    source: int
    heads: int
    neurons: int
    head_sources: tuple[int, ...] = ()
    repeats: int = 1


def check_shapes(shapes: Sequence[LayerShape], dense: Sequence[LayerShape]) -> None:
    """Raise `ExportError` unless every layer of `shapes` can have been cut from one of `dense`."""
    if not shapes:
        raise ExportError("the pruned model's config lists no layers.")
    for shape in shapes:
        for value in (shape.source, shape.heads, shape.neurons, shape.repeats, *shape.head_sources):
            if not isinstance(value, int):
                raise ExportError(f"the pruned model's config gives a layer the size {value!r}, which is no number.")
    sources = [shape.source for shape in shapes]
    if sources != sorted(set(sources)) or sources[0] < 0 or sources[-1] >= len(dense):
        raise ExportError(
            f"the pruned model's config lists layers {sources}; allowed are rising numbers from 0 to {len(dense) - 1}."
        )
    for shape in shapes:
        whole = dense[shape.source]
        for name in ("heads", "neurons", "repeats"):
            size, most = getattr(shape, name), getattr(whole, name)
            if not 1 <= size <= most:
                raise ExportError(
                    f"the pruned model's config gives layer {shape.source} {size} {name}; allowed are 1 to {most}."
                )
        heads = shape.head_sources
        if heads and (
            len(heads) != shape.heads or list(heads) != sorted(set(heads)) or heads[-1] >= whole.heads or heads[0] < 0
        ):
            raise ExportError(
                f"the pruned model's config names heads {list(heads)} of layer {shape.source}; they must be "
                f"{shape.heads} rising numbers below {whole.heads}."
            )
