"""One file from a URL: resumed, retried, verified, whole or not there.

Bytes go to `<file>.part`, which stays after an interruption (Ctrl-C, a full disk, a broken line) and is
completed by the next call, of this process or another, with a range request. The digest is taken over the
finished file, in a second pass: 0.1 s per 90 MB, and it holds for what is on disk rather than for what went
by.
"""

from collections.abc import Callable
from pathlib import Path

import httpx

from slipway.artifacts import sha256_file
from slipway.assets.index import ReleaseFile, http_client, index_url, retried
from slipway.errors import AssetError
from slipway.progress import progress


def download(source: ReleaseFile, target: Path) -> None:
    """Download `source` to `target`; the caller holds the lock of its folder.

    Raises `AssetError` if what arrives is not what `source.sha256` says (it is removed), or if the server
    refuses, and `httpx.TransportError` if it can't be reached.
    """
    part = target.with_name(target.name + ".part")
    resumed = part.is_file() and part.stat().st_size > 0
    _complete(source, part)
    found = sha256_file(part)
    if found != source.sha256 and resumed:
        # The older bytes may be at fault, so they get one chance.
        part.unlink()
        _complete(source, part)
        found = sha256_file(part)
    if found != source.sha256:
        part.unlink()
        raise AssetError(
            f"{source.filename} as downloaded from {httpx.URL(source.url).host} is not what its sha256 says: "
            f"expected {source.sha256}, found {found}. It was removed."
        )
    part.rename(target)


def _complete(source: ReleaseFile, part: Path) -> None:
    with progress(f"Downloading {source.filename}", source.size) as advance:
        shown = 0

        def show(done: int) -> None:
            nonlocal shown
            advance(done - shown)
            shown = done

        try:
            retried(lambda: _append(source, part, show))
        except httpx.HTTPStatusError as error:
            status = error.response.status_code
            raise AssetError(f"{error.request.url.host} answered {status} when asked for {source.filename}.") from error
        except (httpx.UnsupportedProtocol, httpx.TooManyRedirects) as error:
            raise AssetError(f"{source.filename} can't be downloaded: {error}.") from error


def _append(source: ReleaseFile, part: Path, show: Callable[[int], None]) -> None:
    """Fetch what `part` still lacks."""
    done = part.stat().st_size if part.is_file() else 0
    if source.size is not None and done > source.size:
        part.unlink()
        done = 0
    show(done)
    if done == source.size:
        return
    # Compressed in transit, a range would count bytes that are not the file's.
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={done}-"} if done else {})
    with (
        http_client(auth=_credentials(source.url)) as client,
        client.stream("GET", source.url, headers=headers) as response,
    ):
        if response.status_code == 416:
            part.unlink(missing_ok=True)
            raise httpx.ReadError("the server has fewer bytes than were downloaded before", request=response.request)
        response.raise_for_status()
        resumes = response.headers.get("content-range", "").startswith(f"bytes {done}-")
        if done and not (response.status_code == 206 and resumes):
            if response.status_code == 206:
                part.unlink()
                raise httpx.ReadError("the server sent another range than asked", request=response.request)
            done = 0
            show(0)
        with part.open("ab" if done else "wb") as stream:
            # Not in chunks of a size: what was gathered of one is lost when the connection breaks.
            for chunk in response.iter_raw():
                stream.write(chunk)
                done += len(chunk)
                show(done)
        if source.size is not None and done < source.size:
            raise httpx.ReadError(f"the connection ended after {done} of {source.size} bytes", request=response.request)


def _credentials(url: str) -> tuple[str, str] | None:
    """Those of the index, if the file is on the index's host."""
    index, file = httpx.URL(index_url()), httpx.URL(url)
    same = (index.scheme, index.host, index.port) == (file.scheme, file.host, file.port)
    return (index.username, index.password) if same and index.username and not file.username else None
