"""A bundle as an ordinary Triton model repository: `models/NAME/config.pbtxt` and `models/NAME/1/…`.

    repository/
      manifest.json       kind, digests, lineage
      repository.json     `RepositorySpec` below
      models/NAME/
        config.pbtxt
        1/model.py        one import; the code is the package `serving.model.fused`
        1/…               the bundle's files that answer a request

Two decisions are in the configuration.

Instances are the parallelism: one process for each core that the model's threads leave. One thread × two
instances beat two threads × one from eight concurrent requests on.

There is no dynamic batching. An int8 model quantizes activations over the whole batch, so rows are run one at
a time to keep an answer independent of its neighbours (`slipway.predictor`); batching requests would then
only make the first answer wait for the last. The price: Triton's queue limits come with its batcher, so the
bound on requests in flight is the proxy's (`serving.frontdoor`).
"""

import os
import re
import shutil
from pathlib import Path
from typing import Any, Literal

from google.protobuf import text_format  # type: ignore[import-untyped]
from pydantic import BaseModel, ConfigDict, ValidationError

from serving.protocol import INPUT, LABEL, LOGITS, MAX_ROWS, SCORE
from slipway.artifacts import Artifact, inputs_digest, read_artifact, reusable, write_artifact
from slipway.bundle import SPEC, TOKENIZER, Bundle, BundleSpec
from slipway.errors import ArtifactError, ServingError
from slipway.recipe import Serve

MODELS = "models"
DESCRIPTION = "repository.json"

_VERSION = "1"
_TARGET: Literal["cpu"] = "cpu"
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,62}")
_MODEL_PY = '''"""Triton loads this file; the model is the tested package."""

from serving.model.fused import TritonPythonModel

__all__ = ["TritonPythonModel"]
'''


class RepositorySpec(BaseModel):
    """What `repository.json` holds."""

    model_config = ConfigDict(extra="forbid")
    schema_version: int = 1
    model: str
    layout: Literal["fused"]
    target: Literal["cpu", "gpu"]
    instances: int
    threads: int


class Repository:
    """A verified repository on disk."""

    def __init__(self, artifact: Artifact) -> None:
        self.artifact = artifact
        self.models = artifact.path / MODELS
        try:
            self.spec = RepositorySpec.model_validate(artifact.json(DESCRIPTION))
            version = self.models / self.spec.model / _VERSION
            self.bundle = BundleSpec.model_validate_json((version / SPEC).read_text(encoding="utf-8"))
        except (ValidationError, ValueError, OSError) as error:
            raise ArtifactError(f"{artifact.path} is not a repository that can be served: {error}") from error

    @classmethod
    def open(cls, path: Path) -> "Repository":
        """Open the repository at `path`; raises `ArtifactError` if it isn't one or a file of it changed."""
        return cls(read_artifact(path, "repository"))


def write_repository(bundle: Bundle, out: Path, section: Serve) -> Artifact:
    """Render `bundle` as a model repository at `out`; if the one that is there is the same, return that."""
    spec = _plan(bundle, section)
    recipe = spec.model_dump(mode="json")
    inputs = inputs_digest("serving", recipe, [bundle.artifact])
    found = reusable(out, "repository", inputs)
    if found is not None:
        return found
    with write_artifact(
        out, "repository", name=spec.model, inputs=inputs, parents=[bundle.artifact], recipe={"serve": recipe}
    ) as draft:
        version = draft.path / MODELS / spec.model / _VERSION
        model = bundle.target(_TARGET).model
        (version / model).parent.mkdir(parents=True)
        for name in (SPEC, TOKENIZER, model):
            shutil.copyfile(bundle.path / name, version / name)
        (version / "model.py").write_text(_MODEL_PY, encoding="utf-8")
        config = render_config(spec, labels=len(bundle.spec.labels))
        (version.parent / "config.pbtxt").write_text(config, encoding="utf-8")
        draft.write_json(DESCRIPTION, recipe)
    return read_artifact(out, "repository", verify=False)


def render_config(spec: RepositorySpec, *, labels: int) -> str:
    """`config.pbtxt` for Triton, through its own protobuf schema so that a wrong field can't be written."""
    from tritonclient.grpc import model_config_pb2 as schema

    def tensor(name: str, kind: Any, size: int) -> dict[str, Any]:
        return {"name": name, "data_type": kind, "dims": [size]}

    config = schema.ModelConfig(
        name=spec.model,
        backend="python",
        max_batch_size=MAX_ROWS,
        input=[tensor(INPUT, schema.TYPE_STRING, 1)],
        output=[
            tensor(LABEL, schema.TYPE_STRING, 1),
            tensor(SCORE, schema.TYPE_FP32, 1),
            tensor(LOGITS, schema.TYPE_FP32, labels),
        ],
        instance_group=[{"count": spec.instances, "kind": schema.ModelInstanceGroup.KIND_CPU}],
        parameters={
            "target": {"string_value": spec.target},
            "threads": {"string_value": str(spec.threads)},
        },
    )
    return str(text_format.MessageToString(config))


def available_cores() -> int:
    """Cores that this process may use: its affinity, and the CPU quota of its control group (version 2)."""
    cores = len(os.sched_getaffinity(0))
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return cores
    return cores if quota == "max" else max(1, min(cores, int(quota) // int(period)))


def _plan(bundle: Bundle, section: Serve) -> RepositorySpec:
    name = bundle.spec.name
    if not _NAME.fullmatch(name):
        raise ServingError(
            f"{bundle.path} is named {name!r}, which can't be part of a URL; letters, digits, - and _ can."
        )
    threads = section.threads or bundle.target(_TARGET).threads
    return RepositorySpec(
        model=name,
        layout=section.layout,
        target=_TARGET,
        instances=section.instances or max(1, available_cores() // threads),
        threads=threads,
    )
