"""Rewrites of an ONNX graph for inference: exact, in standard operators, for any engine.

They are general over families, as they look at what operators do and not at a model's names. Gains, as the time without
the rewrite over the time with it, the others taken, for MiniLM pruned to 4 heads and 460 neurons (one thread of an AMD
EPYC, CPU time, medians of 160 runs, benchmarks/export/rewrites.py):

    rewrite                     engine              1x32   8x32  32x32  8x128
    last_layer                  ONNX Runtime int8   1.10   1.15   1.16   1.17
                                ONNX Runtime fp32   1.10   1.14   1.15   1.16
                                OpenVINO fp32       1.09   1.14   1.14   1.15
    constants                   ONNX Runtime int8   1.05   1.03   1.03   1.06
                                ONNX Runtime fp32   1.05   1.03   1.02   1.04
                                OpenVINO fp32       1.02   1.02   1.02   1.07
    token_types + embeddings    ONNX Runtime int8   1.00   1.00   1.01   1.01
                                ONNX Runtime fp32   1.01   1.00   1.00   1.00
                                OpenVINO fp32       1.01   1.01   1.01   1.02

Two others were built, proven equal and removed, as neither engine gains from them. Queries, keys and values in one
product: 0.99 to 1.01, and 0.99 on ONNX Runtime int8 at 8x32 and 32x32, with one Split or with one transpose for all
heads; the products quantize their common input once already, and taking the wider product apart costs what it saves.
The scale of attention scores folded into the weights of the queries: 0.98 to 1.03 with a mean of 1.00 up to 4x512; both
engines fold it into the product of queries and keys when they load the file.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from export.rewrites.constants import fold_constants
from export.rewrites.embeddings import sum_embeddings
from export.rewrites.last_layer import narrow_last_layer
from export.rewrites.onnx_graph import OnnxGraph
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
        Rewrite("last_layer", narrow_last_layer),
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
