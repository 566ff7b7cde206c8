"""checkov's Kubernetes and Helm policies over what the chart renders; what is skipped is skipped for a reason."""

import json
import os
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

import pytest
import yaml

from slipway.assets.cache import cache_root
from tests.helm.cases import MATRIX, MINIMAL
from tests.helm.rendering import CHART, Render, merged

pytestmark = [pytest.mark.integration, pytest.mark.slow]

VERSION = "3.3.30"
SKIPPED = {
    "CKV_K8S_21": "the namespace is the release's; checkov renders without one",
    "CKV_K8S_43": "an image is pinned by digest where image.digest says one; a default can't know it",
    "CKV_K8S_15": "pullPolicy is a value; a tag of a version is not expected to move, and a digest can't",
    "CKV_K8S_35": "object stores' credentials are read from the environment by their libraries, in one init container",
    "CKV2_K8S_6": "it knows a policy for a pod only by all of its labels; test_render.py looks at the policies",
}

PROBES = {"CKV_K8S_8", "CKV_K8S_9"}
"""Of what runs to its end, a Pod that is not a Job's included, nobody asks whether it is ready."""


@pytest.fixture(scope="session")
def checkov() -> list[str]:
    """Its command, in an environment of its own: it pins what others need newer."""
    home = cache_root() / f"checkov-{VERSION}-py{sys.version_info.major}{sys.version_info.minor}"
    command = home / "bin" / "checkov"
    if not (home / ".ready").exists():
        venv.create(home, with_pip=True, clear=True)
        install = [str(home / "bin" / "pip"), "install", "--quiet", f"checkov=={VERSION}"]
        run = subprocess.run(install, capture_output=True, text=True, check=False)
        if run.returncode != 0:
            pytest.skip(f"checkov can't be had: {run.stderr[-300:]}")
        (home / ".ready").touch()
    return [str(home / "bin" / "python"), str(command)]


def failed(checkov: list[str], folder: Path, *options: str, path: str = "") -> list[tuple[str, str, str]]:
    """(check, what it says, resource) of every check that failed."""
    command = [*checkov, "--directory", str(folder), "--output", "json", "--quiet", "--compact"]
    command += ["--skip-check", ",".join(SKIPPED), "--skip-download", *options]
    environment = os.environ | {"PATH": os.pathsep.join(filter(None, [path, os.environ["PATH"]]))}
    run = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert run.returncode in (0, 1), run.stderr
    reports: Any = json.loads(run.stdout)
    reports = reports if isinstance(reports, list) else [reports]
    assert sum(report["summary"]["passed"] for report in reports) > 50, "nothing was looked at"
    return [
        (check["check_id"], check["check_name"], check["resource"])
        for report in reports
        for check in report["results"]["failed_checks"]
        if not (check["check_id"] in PROBES and check["resource"].endswith("-slo"))
    ]


def test_what_is_rendered_keeps_the_policies(checkov: list[str], render: Render, tmp_path: Path) -> None:
    for name in ("minimal", "everything", "source s3", "hardware nvidia-t4", "load tests", "scaling keda-zero"):
        file = tmp_path / f"{name.replace(' ', '-')}.yaml"
        file.write_text(yaml.safe_dump_all(render(MATRIX[name])), encoding="utf-8")
    assert failed(checkov, tmp_path, "--framework", "kubernetes") == []


def test_the_chart_keeps_the_policies(checkov: list[str], helm: Path, tmp_path: Path) -> None:
    values = tmp_path / "values.yaml"
    values.write_text(yaml.safe_dump(merged(MINIMAL, MATRIX["load tests"])), encoding="utf-8")
    options = ["--framework", "helm", "--var-file", str(values)]
    assert failed(checkov, CHART, *options, path=str(helm.parent)) == []
