"""What the images install is what the tests run with; and the Containerfiles are in order."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.images.engine import REPOSITORY

PINNED = REPOSITORY / "images" / "requirements"
LISTS = {
    "serve-cpu": ["serve", "otel"],
    "serve-cpu-privacy": ["serve", "otel", "privacy"],
    "serve-gpu": ["serve-gpu", "otel"],
    "loadtest": ["loadtest", "report"],
}


def pins(file: Path) -> dict[str, str]:
    return {
        canonicalize_name(name): version
        for name, version in re.findall(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", file.read_text(), re.MULTILINE)
    }


@pytest.mark.parametrize("name", LISTS)
def test_versions_are_those_of_the_constraints(name: str) -> None:
    tested, installed = pins(REPOSITORY / "constraints.txt"), pins(PINNED / f"{name}.txt")
    assert {package: version for package, version in installed.items() if tested.get(package, version) != version} == {}


@pytest.mark.parametrize("name", LISTS)
def test_every_requirement_is_pinned(name: str) -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    extras, wanted = list(LISTS[name]), [Requirement(line) for line in project["dependencies"]]
    for extra in extras:
        for line in project["optional-dependencies"][extra]:
            requirement = Requirement(line)
            if requirement.name == "slipway":
                extras += sorted(requirement.extras)
            else:
                wanted.append(requirement)
    found = pins(PINNED / f"{name}.txt")
    missing = [one for one in wanted if not one.specifier.contains(found.get(canonicalize_name(one.name), "0"))]
    assert missing == []


@pytest.mark.parametrize("name", [*LISTS, "build"])
def test_every_wheel_has_a_digest(name: str) -> None:
    text = (PINNED / f"{name}.txt").read_text()
    entries = re.split(r"^(?=[A-Za-z0-9])", text, flags=re.MULTILINE)[1:]
    assert len(entries) == len(pins(PINNED / f"{name}.txt")) > 5
    assert [entry.splitlines()[0] for entry in entries if "--hash=sha256:" not in entry] == []


def test_the_gpu_image_has_no_triton_and_no_onnxruntime_for_cpus() -> None:
    found = pins(PINNED / "serve-gpu.txt")
    assert "onnxruntime-gpu" in found
    assert found.keys().isdisjoint({"nvidia-pytriton", "onnxruntime", "torch", "transformers"})


@pytest.mark.parametrize(
    "file", sorted((REPOSITORY / "images").glob("*/Containerfile")), ids=lambda file: file.parent.name
)
def test_hadolint_finds_nothing(file: Path) -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([hadolint, "--no-color", file], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
