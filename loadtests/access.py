"""How a protected endpoint is entered: credentials in headers, certificates for TLS.

A secret is read from the environment or from a file when the load begins. It stands in no recipe, on no command line,
in no log and in no artifact; only the generator, which inherits the environment, reads it.
"""

import os
import ssl
from dataclasses import dataclass, field
from pathlib import Path

from slipway.errors import LoadTestError
from slipway.recipe import LoadTest
from slipway.recipe.traffic import Credentials


@dataclass(frozen=True)
class Tls:
    """PEM files and the name that the server's certificate must have."""

    server_name: str
    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None

    def context(self) -> ssl.SSLContext:
        """For HTTP."""
        context = ssl.create_default_context(cafile=self.ca)
        if self.certificate is not None:
            context.load_cert_chain(self.certificate, self.key)
        return context


@dataclass(frozen=True)
class Access:
    """What a client needs beside the address."""

    headers: dict[str, str] = field(default_factory=dict, repr=False)
    tls: Tls | None = None


def open_access(section: LoadTest, tls_host: str | None) -> Access:
    """The access that `section` describes; `tls_host` is the host of an https:// address.

    Raises `LoadTestError` if a secret or a certificate is not where it should be.
    """
    headers = _headers(section.credentials) if section.credentials else {}
    if tls_host is None:
        return Access(headers)
    files = section.tls
    paths = [_file(path) for path in (files.ca, files.certificate, files.key)]
    tls = Tls(files.server_name or tls_host, *paths)
    try:
        tls.context()
    except (ssl.SSLError, OSError) as error:
        raise LoadTestError(f"loadtest.tls: the certificates can't be used: {error}.") from error
    return Access(headers, tls)


def _headers(credentials: Credentials) -> dict[str, str]:
    secret = _secret(credentials)
    if not secret or not secret.isascii() or not secret.isprintable():
        source = credentials.environment or credentials.file
        raise LoadTestError(f"loadtest.credentials: {source} holds no usable secret: one line of ASCII is expected.")
    return {"authorization": f"Bearer {secret}"} if credentials.kind == "bearer" else {credentials.header: secret}


def _secret(credentials: Credentials) -> str:
    if credentials.environment is not None:
        try:
            return os.environ[credentials.environment].strip()
        except KeyError:
            raise LoadTestError(
                f"loadtest.credentials: the environment has no variable {credentials.environment}; export it first."
            ) from None
    file = Path(credentials.file or "")
    try:
        # What isn't UTF-8 isn't ASCII, either, and is refused as such.
        return file.read_text(encoding="utf-8-sig", errors="replace").strip()
    except OSError as error:
        raise LoadTestError(f"loadtest.credentials: {file} can't be read: {error.strerror}.") from error


def _file(path: str | None) -> Path | None:
    if path is None:
        return None
    if not Path(path).is_file():
        raise LoadTestError(f"loadtest.tls: {path} is not a file.")
    return Path(path)
