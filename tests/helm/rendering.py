"""The real Helm, and the chart rendered by it."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.helm.cases import MINIMAL
from tests.helm.tools import ToolMissingError, helm_binary

CHART = Path(__file__).parents[2] / "helm" / "slipway"

Manifests = list[dict[str, Any]]
Render = Callable[..., Manifests]


@pytest.fixture(scope="session")
def helm() -> Path:
    """The binary."""
    try:
        return helm_binary()
    except ToolMissingError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def render(helm: Path) -> Render:
    """`render(values, kube="1.34.0")`: the manifests; values go over the minimal ones. Raises `RefusedError`."""

    def rendered(values: dict[str, Any] | None = None, kube: str = "1.34.0", *options: str) -> Manifests:
        return render_chart(helm, merged(MINIMAL, values or {}), f"--kube-version={kube}", *options)

    return rendered


def render_chart(
    helm: Path,
    values: dict[str, Any],
    *options: str,
    chart: Path = CHART,
    release: str = "reviews",
    namespace: str = "models",
) -> Manifests:
    """The manifests of `values` alone. Raises `RefusedError`."""
    command = [str(helm), "template", release, str(chart), "--namespace", namespace, "--values", "-", *options]
    run = subprocess.run(command, input=yaml.safe_dump(values), capture_output=True, text=True, check=False)
    if run.returncode != 0:
        raise RefusedError(run.stderr)
    return [each for each in yaml.safe_load_all(run.stdout) if each]


class RefusedError(Exception):
    """Helm refused the values, and says why."""


def merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """`base` with `over` put over it, mapping by mapping, as Helm does it."""
    found = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(found.get(key), dict)
        found[key] = merged(found[key], value) if both else value
    return found


def of_kind(manifests: Manifests, kind: str, name: str = "reviews-slipway") -> dict[str, Any]:
    """The only manifest of `kind` with `name`."""
    [found] = [each for each in manifests if each["kind"] == kind and each["metadata"]["name"] == name]
    return found


def endpoint_of(manifests: Manifests) -> dict[str, Any]:
    """The container that serves."""
    [container] = of_kind(manifests, "Deployment")["spec"]["template"]["spec"]["containers"]
    found: dict[str, Any] = container
    return found
