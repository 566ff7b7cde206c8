"""Anatomy: where a family keeps the parts of a layer that can be cut, and what follows from cutting them.

    shapes.py      what is left of each layer, as numbers
    units.py       heads and neurons as slices of tensors, and the one function that cuts them
    family.py      what a family must say about itself
    bert.py        BERT, RoBERTa, XLM-RoBERTa, CamemBERT, ELECTRA, and MPNet with its shared bias
    distilbert.py
    albert.py      layers that share their weights
    deberta.py     DeBERTa (packed) and DeBERTa v2 / v3
    modernbert.py  packed attention, packed gated feed-forward
    gpt2.py        transposed, packed linears
    llama.py       Llama, Mistral, Qwen, Gemma, SmolLM: grouped keys and values

A family is described by data (which tensor, along which dimension, how wide a head is), and one function cuts by it.
The alternative, a `prune_heads` per family as transformers 4 has, knows heads only, misses DeBERTa, ModernBERT, and the
grouped attention of decoders, and is gone in transformers 5. The price is a description per family, 30–60 lines,
that must be read again when the family's modelling code changes; a test for each holds it against the real model.

Nothing here imports torch before a model is at hand.
"""

from typing import Any

from slipway.anatomy.albert import Albert
from slipway.anatomy.bert import Bert, MPNet
from slipway.anatomy.deberta import Deberta, DebertaV2
from slipway.anatomy.distilbert import DistilBert
from slipway.anatomy.family import Family
from slipway.anatomy.gpt2 import GPT2
from slipway.anatomy.llama import Llama
from slipway.anatomy.modernbert import ModernBert
from slipway.anatomy.shapes import LayerShape, check_shapes
from slipway.anatomy.units import Layer, Units
from slipway.errors import ExportError

__all__ = ["FAMILIES", "Family", "Layer", "LayerShape", "Units", "anatomy_of", "check_shapes"]

FAMILIES: dict[str, Family] = {
    model_type: family
    for family in (Bert(), MPNet(), DistilBert(), Albert(), Deberta(), DebertaV2(), ModernBert(), GPT2(), Llama())
    for model_type in family.model_types
}
"""By the `model_type` of a config."""


def anatomy_of(model: Any) -> Family:
    """The family of a transformers model (or of its config).

    Raises `ExportError` if it is not one that can be cut.
    """
    model_type = getattr(model, "config", model).model_type
    if model_type not in FAMILIES:
        raise ExportError(
            f"a model of type {model_type!r} can't be pruned; the types that can are {', '.join(sorted(FAMILIES))}."
        )
    return FAMILIES[model_type]
