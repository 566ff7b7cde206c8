"""What is to be rendered, decided from the recipe's section and the bundle.

Instances are the parallelism: one process for each core that the model's threads leave. One thread × two instances beat
two threads × one from eight concurrent requests on.

A repository may hold both targets of a bundle: `config.pbtxt` is the CPU's if there is one, and `configs/cpu.pbtxt` and
`configs/gpu.pbtxt` are chosen by Triton's `--model-config-name`.
"""

import os
import re
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from serving.model.settings import LongText, Settings
from serving.protocol import MAX_ROWS
from slipway.bundle import TOKENIZER, Bundle, BundleSpec
from slipway.encoder import Encoder
from slipway.errors import ServingError
from slipway.recipe import Serve
from slipway.recipe.serve import Gpu

TargetName = Literal["cpu", "gpu"]
ENCODER = "encoder"
"""The step of an ensemble that runs the model."""

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,62}")
_BUCKET = 16
"""Of token counts in an ensemble; at 32 tokens on average, a quarter of what is run is then padding."""
_HELPED = 4
"""Encoders that one tokenizer and one decoder keep up with: a text takes them 0.1 ms, the encoder 0.6 ms and more."""


class RepositorySpec(BaseModel):
    """What `repository.json` holds."""

    model_config = ConfigDict(extra="forbid")
    schema_version: int = 3
    model: str
    layout: Literal["fused", "ensemble"]
    target: TargetName
    """That `config.pbtxt` serves."""
    targets: list[TargetName]
    """That there are configurations for."""
    instances: int
    """Of what runs the model, on a CPU."""
    threads: int
    long_text: LongText
    window_stride: int
    max_windows: int
    max_batch_tokens: int
    queue_delay_us: int
    preferred_sizes: dict[TargetName, list[int]]
    """Requests that are handed over together, by target: `[1]` one at a time, `[]` any number."""
    gpu: Gpu

    @property
    def helpers(self) -> int:
        """Tokenizers of an ensemble, and decoders."""
        return -(-self.instances // _HELPED)

    @property
    def runner(self) -> str:
        """Name of Triton's model that runs the bundle's."""
        return self.model if self.layout == "fused" else f"{self.model}_{ENCODER}"

    def settings(self, spec: BundleSpec, target: TargetName) -> Settings:
        """Of the step that reads texts."""
        multiple = spec.targets[target].pad_to_multiple_of
        return Settings(
            target=target,
            threads=self.threads,
            long_text=self.long_text,
            window_stride=self.window_stride if self.long_text == "window" else 0,
            max_windows=self.max_windows if self.long_text == "window" else 1,
            max_batch_tokens=self.max_batch_tokens,
            bucket=max(_BUCKET, multiple) if self.layout == "ensemble" else multiple,
        )


def plan(bundle: Bundle, section: Serve, preferred_sizes: dict[TargetName, list[int]]) -> RepositorySpec:
    """What to render; raises `ServingError` if the bundle can't be served as the section says."""
    name = bundle.spec.name
    if not _NAME.fullmatch(name):
        raise ServingError(
            f"{bundle.path} is named {name!r}, which can't be part of a URL; letters, digits, - and _ can."
        )
    targets: list[TargetName] = [target for target in ("cpu", "gpu") if target in bundle.spec.targets]
    if not targets:
        raise ServingError(f"{bundle.path} has no model for any target.")
    if section.layout == "ensemble":
        _require_batchable(bundle, targets)
    threads = section.threads or bundle.target(targets[0]).threads
    spec = RepositorySpec(
        model=name,
        layout=section.layout,
        target=targets[0],
        targets=targets,
        instances=section.instances or max(1, available_cores() // threads),
        threads=threads,
        long_text=section.long_text,
        window_stride=section.window_stride,
        max_windows=section.max_windows,
        max_batch_tokens=section.max_batch_tokens,
        queue_delay_us=section.queue_delay_us,
        preferred_sizes=preferred_sizes,
        gpu=section.gpu,
    )
    # Raises for windows that don't move on; better now than in Triton's log.
    Encoder(bundle.path / TOKENIZER, bundle.spec.tokenization, windows=spec.settings(bundle.spec, targets[0]).windows)
    if section.layout == "ensemble" and section.long_text == "window" and section.max_windows > MAX_ROWS:
        raise ServingError(f"max_windows is {section.max_windows}; the ensemble layout runs at most {MAX_ROWS}.")
    return spec


def available_cores() -> int:
    """Cores that this process may use: its affinity, and the CPU quota of its control group (version 2)."""
    cores = len(os.sched_getaffinity(0))
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return cores
    return cores if quota == "max" else max(1, min(cores, int(quota) // int(period)))


def _require_batchable(bundle: Bundle, targets: list[TargetName]) -> None:
    for target in targets:
        if not bundle.target(target).batch_invariant:
            raise ServingError(
                f"the {target} model of {bundle.path} can't be served as an ensemble: its int8 ranges are taken over "
                "the whole batch, so that an answer would depend on what it was batched with, and an ensemble's "
                "encoder batches. Use serve.layout: fused, which runs it row by row, or export a model with fixed "
                "ranges (engines: [openvino])."
            )
