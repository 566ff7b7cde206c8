"""What a bundle holds, typed: `bundle.json` tells a server everything it needs to answer.

    bundle/
      manifest.json       kind, digests, lineage
      bundle.json         `BundleSpec` below
      tokenizer.json      a fast tokenizer
      cpu/model.onnx      one model per target
      frontier.json       every variant that was tried: `Variant` below
      frontier.svg        their metric against their latency, the frontier and the choice
      expected.parquet    texts of the test split with the bundle's own answers: text, label (the true one), predicted,
                          score, margin

`expected.parquet` is what a load test sends and what its answers are checked against. It carries texts, which some
teams may not copy; whoever can't, exports with `test_texts: 0` and gives the load test a file of its own.
"""

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from slipway.artifacts import Artifact, read_artifact
from slipway.errors import ArtifactError

SPEC = "bundle.json"
TOKENIZER = "tokenizer.json"
FRONTIER = "frontier.json"
PLOT = "frontier.svg"
EXPECTED = "expected.parquet"

EngineName = Literal["onnxruntime", "openvino"]


class Tokenization(BaseModel):
    """How a text becomes token numbers. `inputs` are the model's inputs, int64 `[batch, tokens]` each."""

    model_config = ConfigDict(extra="forbid")
    max_tokens: int
    pad_token: str
    pad_id: int
    pad_type_id: int = 0
    inputs: list[Literal["input_ids", "attention_mask", "token_type_ids"]]


class Target(BaseModel):
    """The model for one kind of machine and how to run it there: what was measured is what is served.

    `batch_invariant` False says that a row's logits depend on the rows beside it (dynamic quantization takes the
    activations' range over the whole batch), so that rows are run one at a time to keep answers reproducible.
    """

    model_config = ConfigDict(extra="forbid")
    model: str
    precision: Literal["fp32", "int8", "fp16"]
    engine: EngineName = "onnxruntime"
    batch_invariant: bool = True
    threads: int = 1
    """Per instance."""
    instances: int | None = None
    """Copies that gave the most on the machine that measured; None leaves it to the server."""
    pad_to_multiple_of: int = 1
    """Token counts are rounded up to this: an engine that compiles for each shape then sees few of them."""
    disabled_optimizers: list[str] = []
    """Names of ONNX Runtime's graph optimizers that are off for this model, because they slow it down."""
    precision_hint: Literal["f32", "bf16"] = "f32"
    """In what OpenVINO computes what the file has in fp32; bf16 needs a processor that has it."""


class Check(BaseModel):
    """One answer that the bundle must give; a server asks it of itself before it says that it is ready."""

    model_config = ConfigDict(extra="forbid")
    text: str
    label: str
    score: float


class BundleSpec(BaseModel):
    """What `bundle.json` holds."""

    model_config = ConfigDict(extra="forbid")
    schema_version: int = 1
    name: str
    task: str
    labels: list[str]
    tokenization: Tokenization
    temperature: float = 1.0
    targets: dict[Literal["cpu", "gpu"], Target]
    checks: list[Check]


class Speed(BaseModel):
    """How fast a variant answers batches of one shape; `threads` is in the frontier's conditions."""

    model_config = ConfigDict(extra="forbid")
    p50_ms: float
    p95_ms: float
    sequences_per_s: float


class ClassChange(BaseModel):
    """F1 of one class on dev, before and after compression."""

    model_config = ConfigDict(extra="forbid")
    before: float
    after: float


class Variant(BaseModel):
    """One row of `frontier.json`: a way to make the model smaller or faster, and what it gave."""

    model_config = ConfigDict(extra="forbid")
    name: str
    structure: str = "dense"
    """The weights that were quantized: `dense`, or a pruned and distilled model."""
    precision: str
    engine: str
    bytes: int
    """Of the model on disk."""
    metric: str
    dev: dict[str, Any]
    interval: tuple[float, float] | None = None
    """95 % bootstrap interval of the metric on dev."""
    loss_points: float
    """Points (hundredths) of the metric on dev that it lost against the dense checkpoint; negative if it gained."""
    loss_interval: tuple[float, float] | None = None
    """95 % interval of `loss_points`, from a paired bootstrap over the rows of dev."""
    loss_error: float | None = None
    """Standard error of `loss_points`."""
    loss_p_value: float | None = None
    """One-sided: how likely so large a loss would be by chance if there were none."""
    agreement: float
    """Share of dev texts that get the dense checkpoint's label."""
    max_logit_difference: float
    """Against PyTorch's logits of the same weights, on dev: parity."""
    classes: dict[str, ClassChange] = {}
    temperature: float = 1.0
    """That divides the logits of this variant for calibrated scores; fitted on dev."""
    latency_ms: dict[str, float]
    """`{"p50": …, "p95": …}` at the shape that decides."""
    speedup: float
    """Dense eager PyTorch's p50 over this one's, measured interleaved in the same run."""
    speeds: dict[str, Speed] = {}
    """By shape, batch x tokens: `{"32x128": …}`."""
    text_ms: dict[str, float] = {}
    """`{"p50": …, "p95": …}` of single dev texts of all lengths in random order: what a caller meets."""
    memory_mb: float | None = None
    """Resident memory that loading and running it added to a process, at most."""
    roofline_share: float | None = None
    """Operations/s reached at the largest shape over the machine's measured peak for the precision."""
    seeds: list[dict[str, float]] = []
    """Dev and loss of the same recipe trained from other seeds, the first included."""
    how: dict[str, Any] = {}
    """Everything that is needed to make it again: structure, distillation, quantizer and their settings."""
    passed: bool
    chosen: bool = False
    verdict: str


class Bundle:
    """A verified bundle on disk."""

    def __init__(self, artifact: Artifact) -> None:
        self.artifact = artifact
        self.path = artifact.path
        try:
            self.spec = BundleSpec.model_validate(artifact.json(SPEC))
        except (ValidationError, ValueError, OSError) as error:
            raise ArtifactError(f"{artifact.path / SPEC} can't be read: {error}") from error

    @classmethod
    def open(cls, path: Path, *, verify: bool = True) -> "Bundle":
        """Open the bundle at `path`; raises `ArtifactError` if it isn't one or a file of it changed."""
        return cls(read_artifact(path, "bundle", verify=verify))

    def target(self, name: Literal["cpu", "gpu"]) -> Target:
        """The model for a kind of machine."""
        try:
            return self.spec.targets[name]
        except KeyError:
            have = ", ".join(self.spec.targets)
            raise ArtifactError(
                f"{self.path} has no model for {name}, only for {have}; export it with --target {name}."
            ) from None
