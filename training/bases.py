"""The base: a model with a new head for the recipe's labels, and its fast tokenizer.

Only safetensors weights are loaded: a pickle runs code of whoever wrote it. Only fast tokenizers are accepted: the
server tokenizes with the same `tokenizer.json`, in Rust and without transformers.

A base may be a pruned checkpoint (`slipway.pruned`): its small layers are fine-tuned as they are.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slipway.assets import fetch
from slipway.errors import ExportError, TrainingError
from slipway.inputs import inputs_of
from slipway.recipe import Base
from slipway.tasks import get_task

_UNKNOWN = "𓂀 ꙮ"
"""Characters that hardly a vocabulary has, and no normalizer takes away."""


@dataclass(frozen=True)
class LoadedBase:
    """A model in training mode's precision (fp32) and its tokenizer."""

    model: Any
    tokenizer: Any


def load_base(base: Base, task: str, labels: list[str], max_tokens: int, *, seed: int) -> LoadedBase:
    """Fetch and load the base, with a head for `labels` initialised from `seed`.

    Raises `TrainingError` if the folder is no checkpoint, has no safetensors or no fast tokenizer, can't take
    `max_tokens` tokens, or would not answer every text.
    """
    import torch
    import transformers
    from safetensors import SafetensorError

    from slipway.pruned import not_finite  # which makes the type of pruned checkpoints known to transformers, too

    folder = fetch(base.model, sha256=base.sha256, kind="model").path
    if not (folder / "config.json").is_file():
        raise TrainingError(f"base.model {base.model}: there is no config.json, so this is not a checkpoint.")
    if not any(folder.glob("*.safetensors")):
        raise TrainingError(
            f"base.model {base.model}: there are no safetensors weights. Pickled ones are not loaded, as loading runs "
            "code; convert them with transformers' save_pretrained."
        )
    transformers.set_seed(seed)
    auto_class = getattr(transformers, get_task(task).auto_model)
    try:
        tokenizer = _tokenizer(base, folder)
        with _quietly():
            model = auto_class.from_pretrained(
                folder,
                num_labels=len(labels),
                id2label=dict(enumerate(labels)),
                label2id={label: index for index, label in enumerate(labels)},
                ignore_mismatched_sizes=True,
                use_safetensors=True,
                local_files_only=True,
                trust_remote_code=False,
                # On a CPU, PyTorch's fused attention has no kernel for dropout, and its fallback is slower.
                attn_implementation=None if torch.cuda.is_available() else "eager",
            )
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError, ExportError) as error:
        raise TrainingError(f"base.model {base.model} can't be loaded: {_reason(error)}.") from error
    if not tokenizer.is_fast:
        raise TrainingError(
            f"base.model {base.model} has only a slow tokenizer; serving needs a tokenizer.json (a fast one)."
        )
    if tokenizer.pad_token is None:
        # Decoders have none; any token will do, since padding is masked.
        tokenizer.pad_token = tokenizer.eos_token
    if tokenizer.pad_token is None:
        raise TrainingError(f"base.model {base.model}: the tokenizer has neither a padding nor an end token.")
    model.config.pad_token_id = tokenizer.pad_token_id
    # As a server has it, which keeps a text's beginning: trained on ends, a model would be asked about beginnings.
    tokenizer.truncation_side = tokenizer.padding_side = "right"
    # A tokenizer that was made for another family may give what this model does not take.
    taken = inputs_of(model)
    tokenizer.model_input_names = [name for name in tokenizer.model_input_names if name in taken]
    # Texts are tokenized once and padded batch by batch, on purpose; the library would advise against it.
    tokenizer.deprecation_warnings["Asking-to-pad-a-fast-tokenizer"] = True
    _check_length(base, model, max_tokens)
    _check_tokens(base, model, tokenizer)
    broken = not_finite(model)
    if broken is not None:
        raise TrainingError(f"base.model {base.model}: its weights {broken} have values that are not finite.")
    return LoadedBase(model, tokenizer)


def _tokenizer(base: Base, folder: Path) -> Any:
    """The base's tokenizer; a missing or broken one comes as an error of any type out of the library."""
    import transformers

    try:
        with _quietly():
            return transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:
        raise TrainingError(
            f"base.model {base.model}: there is no usable tokenizer ({_reason(error)}); "
            "a tokenizer.json has to lie beside its weights."
        ) from error


def _reason(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


def _check_length(base: Base, model: Any, max_tokens: int) -> None:
    positions = getattr(model.config, "max_position_embeddings", None)
    if positions is None or positions <= 0:
        return
    # RoBERTa-like models number positions from the padding index on and lose those before it.
    if model.config.model_type in {"roberta", "xlm-roberta", "camembert", "mpnet", "longformer"}:
        positions -= (model.config.pad_token_id or 0) + 1
    if max_tokens > positions:
        raise TrainingError(
            f"train.max_tokens is {max_tokens}, but base.model {base.model} takes at most {positions} tokens."
        )


def _check_tokens(base: Base, model: Any, tokenizer: Any) -> None:
    """Any text may come to a server, also one with words or tokens that the training texts don't have."""
    token, number = max(tokenizer.get_vocab().items(), key=lambda entry: entry[1])
    embedded = model.get_input_embeddings().weight.shape[0]
    if number >= embedded:
        raise TrainingError(
            f"base.model {base.model}: the tokenizer has the token {token!r} with the number {number}, but the model "
            f"has {embedded} embeddings, the first of number 0; the two don't belong together."
        )
    try:
        tokenizer(_UNKNOWN)
    except Exception as error:  # out of Rust, without a type of its own
        raise TrainingError(
            f"base.model {base.model}: the tokenizer can't take words that it doesn't know ({_reason(error)}); it "
            "needs a token for them."
        ) from error


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Hold back the library's advice about the head being new: that it is new is the point."""
    from transformers.utils import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
