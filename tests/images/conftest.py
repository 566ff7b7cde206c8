"""Images of this tree: built once for all tests, from a Debian that debootstrap made and wheels that pip has fetched.

Both are kept in the user's cache: the base by its release, the wheels by what the lists pin, older ones removed.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.images.engine import EPOCH, REPOSITORY, Engine
from tests.tiny_bundle import write_tiny_bundle

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "slipway"
SUITE = "bookworm"
LISTS = ("build", "serve-cpu", "loadtest")
PLATFORMS = [f"manylinux{tag}_x86_64" for tag in ("1", "2010", "2014", *(f"_2_{glibc}" for glibc in range(5, 37)))]

Build = Callable[[str], str]


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    missing = [tool for tool in ("buildah", "podman", "crun", "debootstrap") if shutil.which(tool) is None]
    if os.geteuid() != 0:
        missing.append("the rights of root")
    if missing:
        # CI gets them; a test that never runs anywhere is none.
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"images can't be built here without {missing}")
    engine = Engine(tmp_path_factory.mktemp("containers"))
    yield engine
    engine.close()


@pytest.fixture(scope="session")
def debian(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Build arguments that name a plain Debian by its digest, as Debian's own image on a registry would be named."""
    archive = CACHE / "bases" / f"debian-{SUITE}.tar"
    if not archive.is_file():
        archive.parent.mkdir(parents=True, exist_ok=True)
        _debootstrap(tmp_path_factory.mktemp("debian") / "root", archive)
    context = tmp_path_factory.mktemp("base")
    shutil.copy(archive, context / "base.tar")
    (context / "Containerfile").write_text("FROM scratch\nADD base.tar /\n")
    digest = engine.build(context / "Containerfile", "localhost/debian", context=context)
    return {"DEBIAN": "localhost/debian", "DEBIAN_DIGEST": digest}


@pytest.fixture(scope="session")
def wheels() -> Path:
    """The wheels that the lists pin, from wherever this user's pip gets its packages."""
    files = [REPOSITORY / "images" / "requirements" / f"{name}.txt" for name in LISTS]
    pinned = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]
    wheels = CACHE / "wheels" / pinned
    if not wheels.is_dir():
        shutil.rmtree(wheels.parent, ignore_errors=True)
        draft = wheels.with_suffix(".part")
        for file in files:
            subprocess.run(
                [
                    sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes",
                    "--only-binary=:all:", "--implementation=cp", "--python-version=3.11",
                    *(f"--platform={platform}" for platform in PLATFORMS),
                    "--dest", str(draft), "--requirement", str(file),
                ],
                check=True,
            )  # fmt: skip
        draft.rename(wheels)
    return wheels


@pytest.fixture(scope="session")
def build(engine: Engine, debian: dict[str, str], wheels: Path, tmp_path_factory: pytest.TempPathFactory) -> Build:
    """Build an image by the name of its folder, returns its digest."""
    configuration = tmp_path_factory.mktemp("pip") / "pip.conf"
    configuration.write_text("[global]\nno-index = true\nfind-links = /mnt\n")

    def build(name: str) -> str:
        return engine.build(
            REPOSITORY / "images" / name / "Containerfile",
            f"localhost/{name}",
            f"--secret=id=pip.conf,src={configuration}",
            f"--volume={wheels}:/mnt:ro",
            arguments=debian,
        )

    return build


@pytest.fixture(scope="session")
def serving_image(build: Build) -> str:
    build("serve-cpu")
    return "localhost/serve-cpu"


@pytest.fixture(scope="session")
def loadtest_image(build: Build) -> str:
    build("loadtest")
    return "localhost/loadtest"


@pytest.fixture(scope="session")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that anybody may read."""
    return write_tiny_bundle(tmp_path_factory.mktemp("model") / "bundle").path


def _debootstrap(root: Path, archive: Path) -> None:
    subprocess.run(["debootstrap", "--variant=minbase", SUITE, root, *_mirror()], check=True, stdout=subprocess.DEVNULL)
    for left in ("var/cache/apt", "var/lib/apt/lists", "var/log"):
        shutil.rmtree(root / left)
        (root / left).mkdir()
    draft = archive.with_suffix(".part")
    reproducible = ("--sort=name", "--numeric-owner", f"--mtime=@{EPOCH}", "--one-file-system", "--exclude=./dev/*")
    subprocess.run(["tar", "-C", root, *reproducible, "-cf", draft, "."], check=True)
    draft.rename(archive)
    shutil.rmtree(root)


def _mirror() -> list[str]:
    """The one that this machine's apt uses; debootstrap's own if it uses another release's."""
    asked = ["apt-get", "indextargets", "--format", "$(CODENAME) $(COMPONENT) $(CREATED_BY) $(REPO_URI)"]
    for line in subprocess.run(asked, check=True, capture_output=True, text=True).stdout.splitlines():
        if line.startswith(f"{SUITE} main Packages "):
            return [line.split()[3]]
    return []
