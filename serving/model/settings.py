"""What a model's `config.pbtxt` says beyond Triton's own fields: string parameters, read when it is loaded.

`serving.repository` writes them from the recipe and the bundle; the model reads nothing else.
"""

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, Self

from slipway.batching import TokenBudget
from slipway.bundle import SPEC, BundleSpec, Target
from slipway.encoder import Windows
from slipway.engines import Provider
from slipway.errors import ServingError

LongText = Literal["reject", "truncate", "window"]


@dataclass(frozen=True)
class Settings:
    """Of a step that reads texts."""

    target: Literal["cpu", "gpu"]
    threads: int = 1
    long_text: LongText = "truncate"
    window_stride: int = 0
    max_windows: int = 1
    """1, and no stride, unless long texts are run in windows."""
    max_batch_tokens: int = 4096
    bucket: int = 1
    """Token counts are rounded up to this, so that requests of different lengths meet in one batch of the encoder."""
    providers: str = ""
    """JSON of ONNX Runtime's execution providers and their options; empty for the CPU's."""

    def parameters(self) -> dict[str, str]:
        """As `config.pbtxt` has them."""
        written = {field.name: str(getattr(self, field.name)) for field in fields(self)}
        return {name: value for name, value in written.items() if value}

    @classmethod
    def read(cls, parameters: dict[str, str]) -> Self:
        """What `parameters` made; others are left alone."""
        kinds = {field.name: field.type for field in fields(cls)}
        given: dict[str, Any] = {
            name: int(text) if kinds[name] is int else text for name, text in parameters.items() if name in kinds
        }
        return cls(**given)

    @property
    def windows(self) -> Windows:
        """Of a text that is longer than the model takes."""
        return Windows(self.max_windows, self.window_stride)

    def execution_providers(self, device: int) -> list[Provider]:
        """ONNX Runtime's, on the GPU of this number; none is the CPU."""
        if not self.providers:
            return []
        return [(name, {**options, "device_id": device}) for name, options in json.loads(self.providers)]

    @property
    def budget(self) -> TokenBudget:
        """Of one call of the engine."""
        return TokenBudget(tokens=self.max_batch_tokens)


@dataclass(frozen=True)
class Loaded:
    """What a step of the model is made from."""

    directory: Path
    """Of the version: the bundle's files are in it."""
    spec: BundleSpec
    settings: Settings
    device: int
    """Number of the GPU that this instance was given."""

    @property
    def target(self) -> Target:
        """The bundle's target that is served."""
        return self.spec.targets[self.settings.target]


def load(arguments: dict[str, str]) -> Loaded:
    """From what Triton gives `initialize`; raises `ServingError` if a file can't be read."""
    directory = Path(arguments["model_repository"]) / arguments["model_version"]
    try:
        spec = BundleSpec.model_validate_json((directory / SPEC).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ServingError(f"{directory / SPEC} can't be read: {error}") from error
    device = int(arguments.get("model_instance_device_id") or 0)
    return Loaded(directory, spec, Settings.read(model_parameters(arguments)), device)


def model_parameters(arguments: dict[str, str]) -> dict[str, str]:
    """The string parameters of a model's configuration."""
    config: dict[str, Any] = json.loads(arguments["model_config"])
    return {name: value["string_value"] for name, value in config.get("parameters", {}).items()}
