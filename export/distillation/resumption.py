"""The state of a training run in one safetensors file, from which it goes on as if it had never stopped.

Weights, the optimizer's moments and the random state are tensors; counters and figures are JSON in the file's header.
So nothing has to be pickled: loading a pickle runs code of whoever wrote it. A file carries the fingerprint of all that
the run depends on, and one of another run is not gone on with. It is written beside its place and renamed; it takes
four times the trained weights (80 MB for a student of 5 M, 0.1 s).
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slipway.errors import ExportError

Tensors = dict[str, Any]


@dataclass(frozen=True)
class Snapshot:
    """A run between two steps: named groups of tensors, and what JSON can hold."""

    tensors: dict[str, Tensors]
    notes: dict[str, Any]

    def write(self, file: Path, fingerprint: str) -> None:
        """Write to `file`, whole or not at all. Raises `ExportError` if it can't be (a full disk)."""
        from safetensors.torch import save

        flat = {f"{group}/{name}": tensor for group, part in self.tensors.items() for name, tensor in part.items()}
        partial = file.with_name(f"{file.name}.partial")
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            partial.write_bytes(save(flat, {"fingerprint": fingerprint, "notes": json.dumps(self.notes)}))
            partial.replace(file)
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise ExportError(f"the state of training can't be written to {file}: {error.strerror}") from error

    @classmethod
    def read(cls, file: Path, fingerprint: str) -> "Snapshot | None":
        """What was written to `file` by a run with this fingerprint; None if nothing was, or it can't be read."""
        from safetensors import SafetensorError, safe_open

        if not file.is_file():
            return None
        tensors: dict[str, Tensors] = {}
        try:
            with safe_open(file, framework="pt") as opened:
                metadata = opened.metadata() or {}
                if metadata.get("fingerprint") != fingerprint:
                    return None
                for key in opened.keys():  # noqa: SIM118 - it is no dict
                    group, _, name = key.partition("/")
                    tensors.setdefault(group, {})[name] = opened.get_tensor(key)
        except (OSError, SafetensorError):
            return None
        return cls(tensors, json.loads(metadata["notes"]))


def fingerprint(settings: Any, tensors: Tensors) -> str:
    """sha256 of `settings` (what JSON can hold) and of named tensors."""
    import torch

    digest = hashlib.sha256(json.dumps(settings, sort_keys=True, ensure_ascii=False).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
