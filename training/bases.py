"""The base: a model with a new head for the recipe's labels, and its fast tokenizer.

Only safetensors weights are loaded: a pickle runs code of whoever wrote it. Only fast tokenizers are accepted: the
server tokenizes with the same `tokenizer.json`, in Rust and without transformers.

A base may be a pruned checkpoint (`slipway.pruned`): its small layers are fine-tuned as they are.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slipway.assets import fetch
from slipway.errors import TrainingError, first_line
from slipway.inputs import inputs_of
from slipway.progress import say
from slipway.recipe import Base
from slipway.soundness import (
    answer_problem,
    building_problem,
    config_problem,
    library_quiet,
    tokenizer_problem,
    weights_problem,
)
from slipway.tasks import get_task

_LAYER = re.compile(r"^.*?\b(?:layers?|h)\.\d+")
"""The beginning of a weight's name that says of which layer it is: `encoder.layer.3`, `model.layers.3`, `h.3`."""


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

    import slipway.pruned  # noqa: F401  # makes the type of pruned checkpoints known to transformers

    folder = fetch(base.model, sha256=base.sha256, kind="model").path
    _require(base, config_problem(folder))
    if not any(folder.glob("*.safetensors")):
        raise TrainingError(
            f"base.model {base.model}: there are no safetensors weights. Pickled ones are not loaded, as loading runs "
            "code; convert them with transformers' save_pretrained."
        )
    transformers.set_seed(seed)
    auto_class = getattr(transformers, get_task(task).auto_model)
    tokenizer = _tokenizer(base, folder)
    try:
        with library_quiet():
            model, info = auto_class.from_pretrained(
                folder,
                num_labels=len(labels),
                id2label=dict(enumerate(labels)),
                label2id={label: index for index, label in enumerate(labels)},
                ignore_mismatched_sizes=True,
                output_loading_info=True,
                use_safetensors=True,
                local_files_only=True,
                trust_remote_code=False,
                # On a CPU, PyTorch's fused attention has no kernel for dropout, and its fallback is slower.
                attn_implementation=None if torch.cuda.is_available() else "eager",
            )
    except Exception as error:  # of any type: what a config's wrong value first leads to
        raise TrainingError(f"base.model {base.model} can't be loaded: {building_problem(error)}.") from error
    _require_encoder(base, model, {*info["missing_keys"], *info["mismatched_keys"]})
    _say_what_is_left_out(base, model, info["unexpected_keys"])
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
    # A base that was fine-tuned for something else says what: its loss would be another one.
    model.config.problem_type = "single_label_classification"
    # As a server has it, which keeps a text's beginning: trained on ends, a model would be asked about beginnings.
    tokenizer.truncation_side = tokenizer.padding_side = "right"
    # A tokenizer that was made for another family may give what this model does not take.
    taken = inputs_of(model)
    tokenizer.model_input_names = [name for name in tokenizer.model_input_names if name in taken]
    # Texts are tokenized once and padded batch by batch, on purpose; the library would advise against it.
    tokenizer.deprecation_warnings["Asking-to-pad-a-fast-tokenizer"] = True
    _check_length(base, model, max_tokens)
    _require(base, tokenizer_problem(tokenizer, model))
    _require(base, weights_problem(model))
    _require(base, answer_problem(tokenizer, model))
    return LoadedBase(model, tokenizer)


def _tokenizer(base: Base, folder: Path) -> Any:
    """The base's tokenizer; a missing or broken one comes as an error of any type out of the library."""
    import transformers

    try:
        with library_quiet():
            return transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:
        raise TrainingError(
            f"base.model {base.model}: there is no usable tokenizer ({first_line(error)}); "
            "a tokenizer.json has to lie beside its weights."
        ) from error


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


def _require(base: Base, problem: str | None) -> None:
    if problem is not None:
        raise TrainingError(f"base.model {base.model}: {problem}.")


def _require_encoder(base: Base, model: Any, lost: set[str]) -> None:
    """Only the head is new, and what pools for it: what else a base lacks would be random numbers, silently."""
    encoder = f"{model.base_model_prefix}."
    needed = [name for name in model.state_dict() if name.startswith(encoder) and "pooler" not in name]
    missing = sorted(lost.intersection(needed))
    if missing:
        raise TrainingError(
            f"base.model {base.model}: {len(missing)} of the {len(needed)} tensors that its config.json asks for are "
            f"missing or not of the size that it says, the first is {missing[0]}; config.json and weights don't belong "
            "together."
        )


def _say_what_is_left_out(base: Base, model: Any, unexpected: list[str]) -> None:
    """Whole layers of the file may be left out on purpose; a head for another task always is, and is not said."""
    left_out = {match[0] for name in unexpected if (match := _LAYER.search(name))}
    if left_out:
        kept = model.config.num_hidden_layers
        say(f"Base {base.model}: its config.json has {kept} layers; {len(left_out)} more in its weights are left out")
