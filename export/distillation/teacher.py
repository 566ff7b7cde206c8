"""What the dense model has to say about every text, asked once: logits, and the state that its head reads.

Asking the teacher anew in every step would cost as much as training a student of half its size, in every epoch of every
run; its answers don't change. Logits are a few numbers a text. Of hidden states, all tokens of 19,000 texts × 25 tokens
× 384 would be 365 MB a layer in float16. We keep one row a text, 15 MB: that of the token that the head reads. It is
the row that decides, and attention has gathered into it what the others hold; the price is that the student's other
rows are guided through it only. (All rows: TinyBERT, Jiao et al. 2020; the one row: PKD, Sun et al. 2019.)

Which row that is, is asked of the model rather than of a list of families: those rows of the last hidden state on which
the logits depend, by their gradient. It is the first one for BERT-like models, the last one for decoders, all (their
mean) for ModernBERT when its configuration says so.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from export.distillation.autocast import Precision, autocast
from export.distillation.token_batches import by_budget, tokenize
from slipway.errors import ExportError
from slipway.progress import progress

FloatArray = npt.NDArray[np.float32]
Row = Literal["first", "last", "mean"]

_BATCH_TOKENS = 4096
_HALF = 65504.0  # the largest float16


@dataclass(frozen=True)
class Teacher:
    """A model's answers.

    logits: float32 [texts, labels].
    states: layer (counted from 0) → float16 [texts, hidden], what the layer puts out in the row that the head reads.
    """

    logits: FloatArray
    states: Mapping[int, npt.NDArray[np.float16]]

    def digest(self) -> str:
        """sha256 of the answers: the same digest, the same lesson."""
        digest = hashlib.sha256(self.logits.tobytes())
        for layer, state in sorted(self.states.items()):
            digest.update(str(layer).encode())
            digest.update(state.tobytes())
        return digest.hexdigest()

    def write(self, file: Path) -> None:
        """Write to `file` (safetensors), whole or not at all."""
        from safetensors.numpy import save

        arrays: dict[str, Any] = {
            f"states.{layer}": np.ascontiguousarray(state) for layer, state in self.states.items()
        }
        arrays["logits"] = np.ascontiguousarray(self.logits)
        partial = file.with_name(f"{file.name}.partial")
        try:
            partial.write_bytes(save(arrays, {"digest": self.digest()}))
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise ExportError(f"the teacher's answers can't be written to {file}: {error.strerror}") from error
        partial.replace(file)

    @classmethod
    def read(cls, file: Path) -> "Teacher":
        """What `write` wrote. Raises `ExportError` if `file` isn't that, or not any more."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(file, framework="np") as opened:
                digest = (opened.metadata() or {})["digest"]
                arrays = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - it is no dict
            logits = arrays.pop("logits")
            found = cls(logits, {int(name.removeprefix("states.")): state for name, state in arrays.items()})
        except (OSError, SafetensorError, LookupError, ValueError) as error:
            raise ExportError(f"{file} doesn't hold a teacher's answers; remove it to ask again") from error
        if found.digest() != digest:
            raise ExportError(f"{file} is not what was written to it; remove it to ask again")
        return found


def teach(
    model: Any,
    tokenizer: Any,
    texts: Sequence[str],
    *,
    max_tokens: int,
    layers: Sequence[int] = (),
    precision: Precision = "auto",
) -> Teacher:
    """Answers of `model` (a transformers classifier) to `texts`, cut to `max_tokens`.

    Args:
        model: is left in the mode (train or eval) that it was in.
        tokenizer: its fast tokenizer.
        texts: in any order; answers are in the same.
        max_tokens: longer texts are cut.
        layers: which layers' states to keep, counted from 0.
        precision: `auto` is good enough to learn from; to hold other models against the logits, ask for `fp32`.

    Raises `ExportError` if there are no texts or `model` has no such layer.
    """
    import torch

    tokens = tokenize(model, tokenizer, texts, max_tokens)
    device = next(model.parameters()).device
    row = head_row(model) if layers else "first"
    logits: FloatArray | None = None
    states: dict[int, npt.NDArray[np.float16]] = {}
    was_training = model.training
    model.eval()
    try:
        with (
            progress("Asking the dense model", len(texts)) as advance,
            torch.inference_mode(),
            autocast(precision, device),
        ):
            for numbers in by_budget(tokens.lengths, _BATCH_TOKENS):
                batch = tokens.batch(numbers, device)
                output = model(**batch, output_hidden_states=bool(layers))
                answers = output.logits.float().cpu().numpy()
                if logits is None:
                    logits = np.empty((len(texts), answers.shape[1]), dtype=np.float32)
                logits[numbers] = answers
                for layer in layers:
                    state = read_row(row, layer_state(output.hidden_states, layer), batch["attention_mask"])
                    kept = states.setdefault(layer, np.empty((len(texts), state.shape[1]), dtype=np.float16))
                    kept[numbers] = state.float().clamp(-_HALF, _HALF).half().cpu().numpy()
                advance(len(numbers))
    finally:
        model.train(was_training)
    assert logits is not None  # noqa: S101 - there is at least one text
    return Teacher(logits, states)


def head_row(model: Any) -> Row:
    """Which row of the last hidden state `model`'s head reads.

    Raises `ExportError` if it is neither the first, nor the last, nor all of them.
    """
    import torch

    device = next(model.parameters()).device
    # None of them is padding, which decoders' heads look for.
    ids = [number for number in range(8) if number != model.config.pad_token_id][:4]
    # So that there is a gradient even if all weights are frozen.
    handle = model.get_input_embeddings().register_forward_hook(lambda *call: call[-1].requires_grad_())
    was_training = model.training
    model.eval()
    try:
        with torch.enable_grad():
            output = model(input_ids=torch.tensor([ids], device=device), output_hidden_states=True)
            weighted = output.logits * torch.arange(1, output.logits.shape[1] + 1, device=device)
            (gradient,) = torch.autograd.grad(weighted.sum(), output.hidden_states[-1], allow_unused=True)
    finally:
        handle.remove()
        model.train(was_training)
    read = [] if gradient is None else gradient[0].abs().sum(1).ne(0).tolist()
    rows: dict[tuple[bool, ...], Row] = {
        (True, False, False, False): "first",
        (False, False, False, True): "last",
        (True, True, True, True): "mean",
    }
    if tuple(read) not in rows:
        raise ExportError(
            f"the head of this {model.config.model_type} reads neither one token nor all of them, so its hidden states "
            "can't be distilled; distil its logits alone"
        )
    return rows[tuple(read)]


def read_row(row: Row, states: Any, mask: Any) -> Any:
    """The row that the head reads: [texts, tokens, hidden] and an attention mask [texts, tokens] → [texts, hidden]."""
    import torch

    if row == "first":
        return states[:, 0]
    if row == "last":
        last = (torch.arange(mask.shape[1], device=mask.device) * mask).argmax(1)
        return states[torch.arange(len(states), device=mask.device), last]
    weights = mask.unsqueeze(-1).to(states.dtype)
    return (states * weights).sum(1) / weights.sum(1)


def layer_state(hidden_states: Sequence[Any], layer: int) -> Any:
    """What layer `layer` (from 0) puts out; `hidden_states` starts with the embeddings.

    Raises `ExportError` if there is no such layer.
    """
    if not 0 <= layer < len(hidden_states) - 1:
        raise ExportError(f"there is no layer {layer} to distil; the model has layers 0 to {len(hidden_states) - 2}")
    return hidden_states[layer + 1]
