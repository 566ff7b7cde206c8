"""What is wrong with a checkpoint, in words: a library that loads one ends in whatever its first wrong value leads to.

Each function gives the reason, without a full stop, or None where nothing is wrong. Who asks names the checkpoint and
raises: training of a base, export of what it makes smaller.
"""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from slipway.errors import first_line
from slipway.inputs import taken_by

PRUNED = "slipway-pruned"
"""The `model_type` of pruned checkpoints, see `slipway.pruned`; they name the type that they are of as `family`."""

_UNKNOWN = "𓂀 ꙮ"
"""Characters that hardly a vocabulary has, and no normalizer takes away."""


def config_problem(folder: Path) -> str | None:
    """Why the `config.json` in `folder` is not that of a model which classifies texts."""
    try:
        content = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return "there is no config.json, so this is no checkpoint"
    except (ValueError, RecursionError) as error:
        return f"its config.json is not JSON ({first_line(error)})"
    if not isinstance(content, dict):
        return f"its config.json holds {_KINDS.get(type(content), 'a number')}, not an object"
    return _type_problem(content)


def _type_problem(content: dict[str, Any]) -> str | None:
    import transformers

    model_type = content.get("model_type")
    family = content.get("family", "bert") if model_type == PRUNED else model_type
    if not isinstance(family, str):
        return 'its config.json does not name a model_type, such as "bert"'
    if family not in transformers.CONFIG_MAPPING:
        return (
            f"its config.json has the model_type {family!r}, which transformers {transformers.__version__} doesn't know"
        )
    known = transformers.CONFIG_MAPPING[family]
    if known not in transformers.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING:
        return f"its config.json has the model_type {family!r}, and models of that type don't classify texts"
    if content.get("quantization_config"):
        return "its weights are quantized (quantization_config in its config.json); allowed are fp32, fp16 and bf16"
    return _kind_problem(content, family, known)


def _kind_problem(content: dict[str, Any], family: str, known: Any) -> str | None:
    """Encoders and decoders classify texts; not both in one, and no encoder that reads as a decoder does."""
    import transformers

    if content.get("is_encoder_decoder", known().is_encoder_decoder) is True:
        return (
            f"its config.json has the model_type {family!r}, an encoder with a decoder; allowed are encoders, such as "
            "bert, and decoders, such as gpt2"
        )
    if content.get("is_decoder") is True and known in transformers.MODEL_FOR_MASKED_LM_MAPPING:
        return (
            f"its config.json has is_decoder: true, so that no token of this {family} would see those after it; set it "
            "to false"
        )
    return None


def building_problem(error: Exception) -> str:
    """What `error`, out of building a model and filling it with its weights, comes down to."""
    from safetensors import SafetensorError

    if isinstance(error, SafetensorError):
        return f"its weights are no whole safetensors file ({first_line(error)})"
    if isinstance(error, (TypeError, AttributeError, LookupError, ArithmeticError, AssertionError)):
        return (
            "its config.json lacks something, or has a value that no model can be built with "
            f"({type(error).__name__}: {first_line(error)})"
        )
    if "state dict" in str(error).replace("_", " "):
        return "its weights are not of the model that its config.json describes"
    return first_line(error)


def weights_problem(model: Any) -> str | None:
    """Which weights of `model` have values that are not finite."""
    broken = next((name for name, weight in model.named_parameters() if not weight.isfinite().all()), None)
    return None if broken is None else f"its weights {broken} have values that are not finite"


def tokenizer_problem(tokenizer: Any, model: Any) -> str | None:
    """Why a text that comes to a server could not be given to `model`, also one unlike all that it learned from."""
    embedded = model.get_input_embeddings().weight.shape[0]
    token, number = max(tokenizer.get_vocab().items(), key=lambda entry: entry[1], default=("", -1))
    if number < 0:
        return "the tokenizer has no tokens"
    if number >= embedded:
        return (
            f"the tokenizer has the token {token!r} with the number {number}, but the model has {embedded} "
            "embeddings, the first of number 0; the two don't belong together"
        )
    try:
        tokenizer(_UNKNOWN)
    except (TypeError, ValueError, AttributeError) as error:
        return f"the tokenizer can't be used ({first_line(error)}): its tokenizer_config.json has a wrong value"
    except Exception as error:  # out of Rust, without a type of its own
        return f"the tokenizer can't take words that it doesn't know ({first_line(error)}); it needs a token for them"
    return None


def answer_problem(tokenizer: Any, model: Any) -> str | None:
    """Why `model`, not training, gives no answer to a text: some values of its config are used only then."""
    import torch

    try:
        with torch.no_grad():
            model(**taken_by(model, tokenizer(_UNKNOWN, return_tensors="pt")))
    except Exception as error:  # of any type: what a config's wrong value first leads to
        return f"the model can't answer a text: {building_problem(error)}"
    return None


@contextlib.contextmanager
def library_quiet() -> Iterator[None]:
    """Hold back what transformers says of its own while it loads: a new head, weights that don't fit."""
    from transformers.utils import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)


_KINDS = {list: "a list", str: "a text", type(None): "null", bool: "a truth value"}
