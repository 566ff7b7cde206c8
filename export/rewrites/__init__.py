"""Rewrites of an ONNX graph for inference: exact, in standard operators, for any engine.

They are general over families, as they look for what the operators do and not for a model's names. Each is one file:
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from export.rewrites.constants import fold_constants
from export.rewrites.embeddings import sum_embeddings
from export.rewrites.last_layer import narrow_last_layer
from export.rewrites.onnx_graph import OnnxGraph
from export.rewrites.products import merge_products
from export.rewrites.scale import fold_scales
from export.rewrites.token_types import drop_token_types
from slipway.errors import ExportError


@dataclass(frozen=True)
class Rewrite:
    """One exact rewrite."""

    name: str
    apply: Callable[[OnnxGraph], int]
    """Changes the graph and returns how many places it changed."""
    assumes: str = ""
    """What must hold of every input for it to be exact; a rewrite that assumes something has to be asked for."""


REWRITES: dict[str, Rewrite] = {
    rewrite.name: rewrite
    for rewrite in (
        Rewrite("token_types", drop_token_types, assumes="every token type that is sent is 0"),
        Rewrite("constants", fold_constants),
        Rewrite("embeddings", sum_embeddings),
        Rewrite("scale", fold_scales),
        Rewrite("last_layer", narrow_last_layer),
        Rewrite("products", merge_products),
    )
}
"""In the order in which they are applied: the others find more once the shapes are constant."""


def rewrite(
    model: Path, out: Path, *, only: Sequence[str] | None = None, assuming: Collection[str] = ()
) -> dict[str, int]:
    """Rewrite the ONNX file `model` into `out`; how many places each rewrite changed.

    Takes all rewrites that assume nothing, or those named in `only`, and of those that assume something only the ones
    named in `assuming`, whose assumption the caller has checked.

    Raises `ExportError` for a name that isn't known.
    """
    unknown = sorted({*(only or ()), *assuming} - REWRITES.keys())
    if unknown:
        raise ExportError(f"there is no rewrite {unknown[0]!r}; there are: {', '.join(REWRITES)}.")
    graph = OnnxGraph(model)
    graph.prune()
    places = {
        name: chosen.apply(graph)
        for name, chosen in REWRITES.items()
        if (only is None or name in only) and (not chosen.assumes or name in assuming)
    }
    graph.save(out)
    return places
