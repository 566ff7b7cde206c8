"""The thread, stage by stage: make an artifact, or reuse the one that is there.

Each function takes the artifacts and the recipe section that its stage reads, and returns the artifact that it left.
An artifact is reused if the recipe section, the parents and the code that made it have not changed; either way one line
says so. Commands that were started at once don't make the same artifact twice: the second one waits. Both `slipway run`
and the commands of single stages go through here. Stages are imported where they run: a serving machine has no torch.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slipway.artifacts import Artifact, Kind, code_version, inputs_digest, read_artifact, require_destination, reusable
from slipway.bundle import Bundle
from slipway.claims import claimed
from slipway.progress import say
from slipway.recipe import Export, LoadTest, Recipe, Serve

STAGES = ("train", "export", "serve", "loadtest", "report")


@dataclass(frozen=True)
class RunFolder:
    """Where the artifacts of one recipe lie: `runs/NAME/…`."""

    path: Path

    @property
    def checkpoint(self) -> Path:
        """What training leaves."""
        return self.path / "checkpoint"

    @property
    def bundle(self) -> Path:
        """What export leaves."""
        return self.path / "bundle"

    @property
    def repository(self) -> Path:
        """What serving starts from."""
        return self.path / "repository"

    @property
    def verdict(self) -> Path:
        """What the load test leaves."""
        return self.path / "verdict"

    @property
    def report(self) -> Path:
        """What a person reads."""
        return self.path / "report"


def train(recipe: Recipe, out: Path, *, force: bool = False) -> Artifact:
    """Recipe → checkpoint."""
    import training

    return _make(
        "train",
        "checkpoint",
        out,
        training.training_inputs(recipe),
        force,
        lambda: training.train(recipe, out),
    )


def export(checkpoint: Path, out: Path, section: Export, *, force: bool = False) -> Artifact:
    """Checkpoint → bundle."""
    parent = read_artifact(checkpoint, "checkpoint")
    import export as stage

    inputs = stage.export_inputs(parent, section)
    return _make("export", "bundle", out, inputs, force, lambda: stage.export(checkpoint, out, section, force=force))


def load_test(
    bundle: Path, out: Path, serve: Serve, section: LoadTest, repository: Path, *, force: bool = False
) -> Artifact:
    """Bundle → verdict, on an endpoint that is started for it and stopped after it."""
    parent = Bundle.open(bundle)
    import loadtests

    inputs = inputs_digest(
        "loadtests",
        {"loadtest": section.model_dump(mode="json"), "serve": serve.model_dump(mode="json")},
        [parent.artifact],
        assets={"serving": code_version("serving")},
    )

    def measure() -> Artifact:
        with served(parent, repository, serve) as endpoint:
            _show_answers(parent, endpoint.address)
            return loadtests.run(parent, endpoint.address, section, out, endpoint=endpoint.describe(), inputs=inputs)

    return _make("loadtest", "verdict", out, inputs, force, measure)


@contextlib.contextmanager
def served(bundle: Bundle, repository: Path, section: Serve) -> Iterator[Any]:
    """The endpoint of `bundle` on a free port, its repository written to `repository`, until the block ends."""
    import serving

    rendered = serving.write_repository(bundle, repository, section)
    # A port that happens to be taken must not spoil a run that nobody else talks to.
    with serving.start(rendered.path, section.model_copy(update={"port": 0})) as endpoint:
        yield endpoint


def report(run: Path, out: Path, *, force: bool = False) -> Artifact:
    """Whatever artifacts there are → report."""
    from slipway.report import collect, report_inputs, write_report

    evidence = collect(run)
    return _make("report", "report", out, report_inputs(evidence), force, lambda: write_report(evidence, out))


def _make(stage: str, kind: Kind, out: Path, inputs: str, force: bool, make: Callable[[], Artifact]) -> Artifact:
    def found() -> Artifact | None:
        return None if force else reusable(out, kind, inputs)

    artifact = found()
    if artifact is None:
        require_destination(out, kind)
        with claimed(out):
            # Whoever held the claim before may have made it.
            artifact = found()
            if artifact is None:
                say(f"{stage}: making {_relative(out)}")
                return make()
    say(f"{stage}: reusing {_relative(out)}: recipe, parents and code are unchanged")
    return artifact


def _relative(path: Path) -> str:
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _show_answers(bundle: Bundle, address: str) -> None:
    """Ask a few texts through the front door, as a caller would."""
    import serving

    texts = [check.text for check in bundle.spec.checks]
    with serving.Client(address, bundle.spec.name, protocol="http") as client:
        for text, answer in zip(texts, client.classify(texts), strict=True):
            say(f"  {answer.label} {answer.score:.2f}  {text}")
