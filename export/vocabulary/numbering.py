"""New token numbers wherever a tokenizer.json refers to tokens by number."""

from collections.abc import Iterator, Mapping
from typing import Any

from slipway.errors import ExportError


def referred_tokens(tokenizer: Mapping[str, Any]) -> Iterator[str]:
    """Every token outside the model that `tokenizer` (a tokenizer.json) names: added ones, the template's, padding."""
    for added in tokenizer.get("added_tokens") or ():
        yield added["content"]
    if tokenizer.get("padding"):
        yield tokenizer["padding"]["pad_token"]
    for step in _post_processors(tokenizer.get("post_processor")):
        for special in (step.get("special_tokens") or {}).values():
            yield from special["tokens"]
        for role in ("cls", "sep"):
            if role in step:
                yield step[role][0]


def renumber(tokenizer: Mapping[str, Any], model: dict[str, Any], numbers: Mapping[str, int]) -> dict[str, Any]:
    """`tokenizer` with `model` for its model, and the numbers of tokens taken from `numbers`.

    Raises `ExportError` for a post-processor of an unknown type, which may hold numbers that would be missed.
    """
    padding = tokenizer.get("padding")
    if padding and padding["pad_token"] not in numbers:
        padding = None
    return {
        **tokenizer,
        "added_tokens": [{**added, "id": numbers[added["content"]]} for added in tokenizer.get("added_tokens") or ()],
        "padding": padding and {**padding, "pad_id": numbers[padding["pad_token"]]},
        "post_processor": _renumber_post_processor(tokenizer.get("post_processor"), numbers),
        "model": model,
    }


def _post_processors(step: Mapping[str, Any] | None) -> Iterator[Mapping[str, Any]]:
    if step is None:
        return
    if step["type"] == "Sequence":
        for inner in step["processors"]:
            yield from _post_processors(inner)
    else:
        yield step


def _renumber_post_processor(step: Mapping[str, Any] | None, numbers: Mapping[str, int]) -> dict[str, Any] | None:
    if step is None:
        return None
    match step["type"]:
        case "Sequence":
            return {**step, "processors": [_renumber_post_processor(inner, numbers) for inner in step["processors"]]}
        case "TemplateProcessing":
            special = {
                name: {**entry, "ids": [numbers[token] for token in entry["tokens"]]}
                for name, entry in step["special_tokens"].items()
            }
            return {**step, "special_tokens": special}
        case "BertProcessing" | "RobertaProcessing":
            return {**step} | {role: [step[role][0], numbers[step[role][0]]] for role in ("cls", "sep")}
        case "ByteLevel":
            return {**step}
        case unknown:
            raise ExportError(
                f"the tokenizer's post-processor {unknown} is not known, so its token numbers can't be changed; "
                "export without vocabulary pruning."
            )
