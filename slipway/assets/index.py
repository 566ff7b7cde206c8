"""A package index: which file of a release has the pinned digest, and where it is.

Speaks the simple API in JSON (PEP 691), and in HTML (PEP 503) for the mirrors that only know that. The index
is `PIP_INDEX_URL`, else `UV_INDEX_URL`, else `UV_DEFAULT_INDEX`, else PyPI; credentials in the URL are used
for that host only and never printed. Configuration files of pip and uv are not read.
"""

import html.parser
import os
import re
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import unquote, urldefrag

import httpx
from packaging.utils import (
    InvalidSdistFilename,
    InvalidWheelFilename,
    canonicalize_name,
    parse_sdist_filename,
    parse_wheel_filename,
)
from packaging.version import InvalidVersion, Version
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_exponential

from slipway import __version__
from slipway.errors import AssetError

_JSON = "application/vnd.pypi.simple.v1+json"
_VARIABLES = ("PIP_INDEX_URL", "UV_INDEX_URL", "UV_DEFAULT_INDEX")
_TRIES = 4
_TRANSIENT_STATUS = {408, 425, 429, 500, 502, 503, 504}

between_tries = wait_exponential(multiplier=0.5, max=8)
"""0.5, 1, 2 s: long enough for a hiccup, short enough that being offline is told soon."""

T = TypeVar("T")


@dataclass(frozen=True)
class ReleaseFile:
    """One file of a package on an index. `size` in bytes, where the index tells; `version` None if its name
    won't."""

    filename: str
    url: str
    sha256: str
    size: int | None
    version: Version | None


def index_url() -> str:
    """The index to ask, without a slash at the end."""
    return next((os.environ[name] for name in _VARIABLES if os.environ.get(name)), "https://pypi.org/simple").rstrip(
        "/"
    )


def without_credentials(url: str) -> str:
    """`url` as it may be printed."""
    return re.sub(r"(?<=://)[^/@]*@", "", url)


def http_client(*, auth: tuple[str, str] | None = None) -> httpx.Client:
    """A client that honours proxies, `SSL_CERT_FILE`, and `REQUESTS_CA_BUNDLE` as pip would."""
    bundle = os.environ.get("REQUESTS_CA_BUNDLE")
    verify: ssl.SSLContext | bool = True
    if bundle and not os.environ.get("SSL_CERT_FILE"):
        verify = ssl.create_default_context(cafile=bundle)
    return httpx.Client(
        auth=auth,
        verify=verify,
        follow_redirects=True,
        timeout=httpx.Timeout(30, connect=10),
        headers={"User-Agent": f"slipway/{__version__}"},
    )


def retried(attempt: Callable[[], T]) -> T:
    """Call `attempt` again, a few times, after what may pass by itself: a broken connection, a busy
    server."""
    return Retrying(
        stop=stop_after_attempt(_TRIES), wait=between_tries, retry=retry_if_exception(_may_pass), reraise=True
    )(attempt)


def find_release_file(name: str, version: str, sha256: str) -> ReleaseFile:
    """The file of `name==version` whose digest is `sha256`.

    Raises `AssetError` that says what there is instead, and `httpx.TransportError` if the index can't be
    reached.
    """
    wanted, pinned = f"{name}=={version}", Version(version)
    files = _list_files(name)
    of_version = [file for file in files if file.version == pinned]
    found = next((file for file in files if file.sha256 == sha256), None)
    if found is not None and (found in of_version or found.version is None):
        return found
    shown = without_credentials(index_url())
    if found is not None:
        raise AssetError(f"the sha256 {sha256} is of {found.filename}, which is not version {version} of {name}.")
    if not of_version:
        versions = sorted({file.version for file in files if file.version is not None}, reverse=True)
        there = ", ".join(str(one) for one in versions[:8]) + (", …" if len(versions) > 8 else "")
        raise AssetError(f"pypi:{wanted} does not exist on {shown}; versions there: {there or 'none'}.")
    there = ", ".join(f"{file.filename} ({file.sha256 or 'no sha256'})" for file in of_version)
    raise AssetError(f"no file of pypi:{wanted} on {shown} has the sha256 {sha256}; there are {there}.")


def _list_files(name: str) -> list[ReleaseFile]:
    base = index_url()
    page = f"{base}/{canonicalize_name(name)}/"
    shown = without_credentials(base)

    def ask() -> httpx.Response:
        with http_client() as client:
            return client.get(page, headers={"Accept": f"{_JSON}, text/html;q=0.1"}).raise_for_status()

    try:
        response = retried(ask)
    except httpx.HTTPStatusError as error:
        if error.response.status_code == 404:
            raise AssetError(f"there is no package {name} on {shown}.") from error
        raise AssetError(f"{shown} answered {error.response.status_code} when asked for {name}.") from error
    except (httpx.InvalidURL, httpx.UnsupportedProtocol, httpx.TooManyRedirects) as error:
        raise AssetError(f"the package index {shown} can't be used: {error}.") from error
    try:
        if "json" in response.headers.get("content-type", ""):
            entries = [
                (
                    entry["filename"],
                    entry["url"],
                    entry.get("hashes", {}).get("sha256", ""),
                    entry.get("size"),
                )
                for entry in response.json()["files"]
            ]
        else:
            entries = _Anchors.of(response.text)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise AssetError(f"{shown} did not answer in the simple API (PEP 691) when asked for {name}.") from error
    # A relative address is relative to the page as it was served, after redirects.
    return [
        ReleaseFile(filename, str(response.url.join(url)), sha256, size, _version_of(filename))
        for filename, url, sha256, size in entries
        if re.fullmatch(r"[\w.+!-]+", filename) and not filename.startswith(".")
    ]


class _Anchors(html.parser.HTMLParser):
    """The links of a PEP 503 page: `<a href="URL#sha256=…">filename</a>`."""

    def __init__(self) -> None:
        super().__init__()
        self.entries: list[tuple[str, str, str, int | None]] = []

    @classmethod
    def of(cls, page: str) -> list[tuple[str, str, str, int | None]]:
        parser = cls()
        parser.feed(page)
        return parser.entries

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take a link; its digest is in the fragment."""
        address = dict(attrs).get("href")
        if tag == "a" and address:
            url, fragment = urldefrag(address)
            digest = fragment.removeprefix("sha256=") if fragment.startswith("sha256=") else ""
            self.entries.append((unquote(url.rpartition("/")[2]), url, digest, None))


def _version_of(filename: str) -> Version | None:
    try:
        if filename.endswith(".whl"):
            return parse_wheel_filename(filename)[1]
        if filename.endswith((".tar.gz", ".zip")):
            return parse_sdist_filename(filename)[1]
        stem = re.sub(r"\.(tar\.bz2|tar\.xz|tgz|tbz2|egg)$", "", filename)
        return Version(stem.rpartition("-")[2])
    except (InvalidWheelFilename, InvalidSdistFilename, InvalidVersion):
        return None


def _may_pass(error: BaseException) -> bool:
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code in _TRANSIENT_STATUS
    never = (httpx.UnsupportedProtocol, httpx.LocalProtocolError)
    return isinstance(error, httpx.TransportError) and not isinstance(error, never)
