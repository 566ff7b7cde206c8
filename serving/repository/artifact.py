"""A repository on disk: written whole from a bundle, or opened and verified.

    repository/
      manifest.json       kind, digests, lineage
      repository.json     `serving.repository.plan.RepositorySpec`
      models/NAME/
        config.pbtxt
        configs/gpu.pbtxt  where the bundle has a model for GPUs
        1/model.py         one import; the code is the package `serving.model`
        1/…                the bundle's files that answer a request

An ensemble has the folders NAME (configuration only), NAME_tokenize, NAME_encoder (`1/model.onnx`) and NAME_decode.
"""

import shutil
from pathlib import Path

from serving.repository.batching import preferred_sizes
from serving.repository.configuration import DECODE, TOKENIZE, Renderer
from serving.repository.plan import ENCODER, RepositorySpec, TargetName, plan
from slipway.artifacts import Artifact, inputs_digest, read_artifact, reusable, write_artifact
from slipway.bundle import SPEC, TOKENIZER, Bundle, BundleSpec
from slipway.errors import ArtifactError
from slipway.recipe import Serve

MODELS = "models"
DESCRIPTION = "repository.json"
VERSION = "1"

_MODEL_PY = '''"""Triton loads this file; the model is the tested package."""

from serving.model.{module} import TritonPythonModel

__all__ = ["TritonPythonModel"]
'''


class Repository:
    """A verified repository on disk."""

    def __init__(self, artifact: Artifact) -> None:
        self.artifact = artifact
        self.models = artifact.path / MODELS
        try:
            self.spec = RepositorySpec.model_validate(artifact.json(DESCRIPTION))
            self.bundle = BundleSpec.model_validate_json(_spec_file(self.models, self.spec).read_text(encoding="utf-8"))
        except (ValueError, OSError) as error:
            raise ArtifactError(
                f"{artifact.path} is not a repository that can be served; render it again from its bundle: {error}"
            ) from error

    @classmethod
    def open(cls, path: Path) -> "Repository":
        """Open the repository at `path`; raises `ArtifactError` if it isn't one or a file of it changed."""
        return cls(read_artifact(path, "repository"))


def write_repository(bundle: Bundle, out: Path, section: Serve) -> Artifact:
    """Render `bundle` as a model repository at `out`; if the one that is there is the same, return that.

    Raises `ServingError` if the bundle can't be served as `section` says.
    """
    spec = plan(bundle, section, preferred_sizes(bundle))
    recipe = spec.model_dump(mode="json")
    inputs = inputs_digest("serving", recipe, [bundle.artifact])
    found = reusable(out, "repository", inputs)
    if found is not None:
        return found
    with write_artifact(
        out, "repository", name=spec.model, inputs=inputs, parents=[bundle.artifact], recipe={"serve": recipe}
    ) as draft:
        writer = _Writer(bundle, spec, draft.path / MODELS)
        if spec.layout == "fused":
            writer.fused()
        else:
            writer.ensemble()
        draft.write_json(DESCRIPTION, recipe)
    return read_artifact(out, "repository", verify=False)


class _Writer:
    def __init__(self, bundle: Bundle, spec: RepositorySpec, models: Path) -> None:
        self._bundle = bundle
        self._spec = spec
        self._models = models
        self._renderer = Renderer(spec, bundle.spec)

    def fused(self) -> None:
        name, files = self._spec.model, [self._bundle.target(target).model for target in self._spec.targets]
        self._python(name, "fused", [TOKENIZER, *files])
        self._configure(name, {target: self._renderer.fused(target) for target in self._spec.targets})

    def ensemble(self) -> None:
        renderer, targets = self._renderer, self._spec.targets
        # An ensemble has no files of its own, but Triton wants a version of it.
        (self._models / self._spec.model / VERSION).mkdir(parents=True)
        (self._models / self._spec.model / VERSION / "README").write_text("An ensemble: see config.pbtxt.\n")
        self._configure(self._spec.model, {self._spec.target: renderer.ensemble()})
        self._python(renderer.part(TOKENIZE), "tokenize", [TOKENIZER])
        self._configure(renderer.part(TOKENIZE), {target: renderer.tokenize(target) for target in targets})
        self._python(renderer.part(DECODE), "decode", [])
        self._configure(renderer.part(DECODE), {target: renderer.decode(target) for target in targets})
        encoder = self._models / renderer.part(ENCODER) / VERSION
        encoder.mkdir(parents=True)
        for target in targets:
            source = self._bundle.path / self._bundle.target(target).model
            shutil.copyfile(source, encoder / renderer.encoder_file(target))
        self._configure(renderer.part(ENCODER), {target: renderer.encoder(target) for target in targets})

    def _python(self, name: str, module: str, files: list[str]) -> None:
        version = self._models / name / VERSION
        for file in [SPEC, *files]:
            (version / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(self._bundle.path / file, version / file)
        (version / "model.py").write_text(_MODEL_PY.format(module=module), encoding="utf-8")

    def _configure(self, name: str, configs: dict[TargetName, str]) -> None:
        """`config.pbtxt` for the first target; where there are several that differ, or a GPU, one under its name."""
        folder = self._models / name
        (folder / "config.pbtxt").write_text(configs[self._spec.target], encoding="utf-8")
        if len(configs) == 1 and "gpu" not in configs:
            return
        (folder / "configs").mkdir()
        for target, config in configs.items():
            (folder / "configs" / f"{target}.pbtxt").write_text(config, encoding="utf-8")


def _spec_file(models: Path, spec: RepositorySpec) -> Path:
    name = spec.model if spec.layout == "fused" else f"{spec.model}_{TOKENIZE}"
    return models / name / VERSION / SPEC
