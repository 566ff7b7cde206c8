"""The caller's side of a promotion: which endpoint, which repository, which texts; then listening until it ends."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from serving.repository import Repository, write_repository
from serving.rollout.endpoints import RunningEndpoint, ask
from slipway.artifacts import Artifact, parent_of_kind, read_artifact
from slipway.bundle import EXPECTED, Bundle
from slipway.errors import ArtifactError, ServingError
from slipway.recipe import Serve
from slipway.recipe.rollout import Rollout

MOST_TEXTS = 400
"""Texts that both versions are asked; twice as many inferences, a second or two of one core."""


class RolledBackError(ServingError):
    """The new version was out of bounds; the old one serves on."""

    exit_code = 2


def promote(
    endpoint: RunningEndpoint,
    path: Path,
    rollout: Rollout,
    tell: Callable[[str], None],
    repository_out: Path | None = None,
) -> str:
    """Promote the bundle or repository at `path`; returns what is served then, in words.

    A bundle is rendered with the endpoint's own settings, by default beside the bundle. Raises `ArtifactError` if it
    can't be trusted, `ServingError` if the endpoint refuses it, `RolledBackError` if it fell out of bounds; the version
    before serves on in each case.
    """
    repository = _repository(endpoint, path, repository_out)
    opened = Repository.open(repository)
    if opened.spec.model != endpoint.model:
        raise ServingError(
            f"{path} is the model {opened.spec.model!r}, and the endpoint at {endpoint.address} serves "
            f"{endpoint.model!r}. Serve it as an endpoint of its own."
        )
    request = {
        "do": "promote",
        "repository": str(repository.absolute()),
        "rollout": rollout.model_dump(mode="json"),
        "texts": _texts(endpoint, opened),
    }
    return _follow(endpoint, request, tell)


def abort(endpoint: RunningEndpoint) -> str:
    """Have the promotion that is under way go back; raises `ServingError` if none is."""
    answer = next(ask(endpoint, {"do": "abort"}))
    if answer["kind"] == "refused":
        raise ServingError(answer["message"])
    return str(answer["message"])


def status(endpoint: RunningEndpoint) -> str:
    """What is served, and how the promotion goes, or how the last one went."""
    lines = [f"{endpoint.model} at {endpoint.address}: version {endpoint.version}, {endpoint.repository}"]
    promotion: dict[str, Any] | None = endpoint.promotion
    if promotion is not None:
        share = f", {promotion['percent']} % of the requests" if promotion["percent"] else ""
        shadow = f", copies of {promotion['shadow']} %" if promotion["shadow"] else ""
        lines.append(f"version {promotion['version']}: {promotion['state']}{share}{shadow}, {promotion['repository']}")
        lines += [f"  {promotion[name]}" for name in ("figures", "message") if promotion[name]]
    return "\n".join(lines)


def _repository(endpoint: RunningEndpoint, path: Path, out: Path | None) -> Path:
    artifact = read_artifact(path, verify=False)
    if artifact.manifest.kind == "repository":
        return path
    if artifact.manifest.kind != "bundle":
        raise ServingError(f"{path} is a {artifact.manifest.kind}; a bundle or a repository can be promoted.")
    section = Serve.model_validate_json(json.dumps(endpoint.settings))
    return write_repository(Bundle.open(path), out or path.absolute().parent / "repository", section).path


def _texts(endpoint: RunningEndpoint, repository: Repository) -> list[str]:
    """Checks and test texts of both versions, as far as their bundles are still on disk; the same ones every time."""
    texts = dict.fromkeys(check.text for check in repository.bundle.checks)
    for artifact in (repository.artifact, _served(endpoint)):
        bundle = parent_of_kind(artifact, "bundle") if artifact is not None else None
        if bundle is not None:
            texts |= dict.fromkeys(_expected(bundle))
    found = list(texts)
    return found if len(found) <= MOST_TEXTS else random.Random(0).sample(found, MOST_TEXTS)  # noqa: S311


def _served(endpoint: RunningEndpoint) -> Artifact | None:
    try:
        artifact = read_artifact(Path(endpoint.repository), "repository", verify=False)
    except ArtifactError:
        return None
    return artifact if artifact.digest == endpoint.digest else None


def _expected(bundle: Artifact) -> list[str]:
    import pyarrow.parquet as pq

    file = bundle.path / EXPECTED
    return [str(text) for text in pq.read_table(file, columns=["text"])["text"].to_pylist()] if file.is_file() else []


def _follow(endpoint: RunningEndpoint, request: dict[str, Any], tell: Callable[[str], None]) -> str:
    for answer in ask(endpoint, request):
        match answer["kind"], answer.get("state"):
            case "ended", "promoted":
                return str(answer["message"])
            case "ended", "rolled back":
                raise RolledBackError(_went_on(endpoint, "was rolled back", answer))
            case "ended", state:
                raise ServingError(_went_on(endpoint, f"was {state}", answer))
            case "refused", _:
                raise ServingError(answer["message"])
            case _:
                tell(answer["message"])
    raise ServingError(f"the endpoint at {endpoint.address} ended before the promotion did.")


def _went_on(endpoint: RunningEndpoint, how: str, answer: dict[str, Any]) -> str:
    return f"{answer['repository']} {how}: {answer['message']} Version {endpoint.version} serves on."
