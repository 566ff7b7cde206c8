"""The model with embeddings only for the tokens that stayed. Every other weight, and so every answer to a text whose
tokens all stayed, is the same."""

import copy
from typing import Any

from export.vocabulary.plan import VocabularyPlan
from slipway.errors import ExportError


def select_embeddings(model: Any, plan: VocabularyPlan) -> Any:
    """A copy of `model` (a transformers classifier) whose token embedding has the rows `plan.kept`, in that order.

    `config.vocab_size` and the `*_token_id` of its config are renumbered, and so is the embedding's `padding_idx`.

    Raises `ExportError` if the embedding has fewer rows than the tokenizer has tokens, if the model predicts tokens
    (its output layer would have to shrink, too), or if positions are counted from the padding token's number (RoBERTa)
    and that number would change.
    """
    import torch

    embedding = model.get_input_embeddings()
    kept = torch.from_numpy(plan.kept)
    if embedding.num_embeddings <= int(kept[-1]):
        raise ExportError(
            f"the tokenizer has token {int(kept[-1])}, but the model only {embedding.num_embeddings} embeddings: they "
            "don't belong together."
        )
    if getattr(model, "get_output_embeddings", lambda: None)() is not None:
        raise ExportError(f"{type(model).__name__} predicts tokens; only a classifier's vocabulary can be pruned.")
    config = plan.renumber_config(model.config.to_dict())
    padding = None if embedding.padding_idx is None else plan.new_number(embedding.padding_idx)
    if padding is None and embedding.padding_idx is not None:
        raise ExportError(
            f"the padding token (number {embedding.padding_idx}) would be pruned; name it in `keep`, or export "
            "without vocabulary pruning."
        )
    for name, module in model.named_modules():
        first = getattr(module, "padding_idx", None)
        if name.endswith("position_embeddings") and first is not None and first != padding:
            raise ExportError(
                f"{type(model).__name__} counts positions from its padding token's number, which would change from "
                f"{first} to {padding}; export without vocabulary pruning."
            )
    smaller = copy.deepcopy(model)
    weights = embedding.weight.detach()[kept.to(embedding.weight.device)].clone()
    smaller.set_input_embeddings(torch.nn.Embedding.from_pretrained(weights, freeze=False, padding_idx=padding))
    smaller.get_input_embeddings().weight.requires_grad_(embedding.weight.requires_grad)
    for key in ("vocab_size", *(key for key in config if key.endswith("_token_id"))):
        setattr(smaller.config, key, config[key])
    return smaller.train(model.training)
