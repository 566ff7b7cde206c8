"""The files that credentials are in: API keys, JWKS, certificates. Read, checked, and noticed when they change.

A file of keys is JSON, written by `slipway keys` and readable by its owner only:

    {"keys": [{"id": "web-shop", "sha256": "…", "scopes": ["predict:reviews"], "created": "…", "expires": "…"}]}

It has no key in it. A key is shown once, when it is made: `slw_` and 160 random bits.
"""

import base64
import codecs
import contextlib
import datetime
import hashlib
import json
import os
import re
import secrets
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any

from serving.frontdoor.door import FrontDoor
from slipway.errors import ServingError

PREFIX = "slw_"

_RANDOM_BYTES = 20
_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_SCOPE = re.compile(r"(predict|admin):([A-Za-z][A-Za-z0-9_-]{0,62}|\*)")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_BASE64URL = re.compile(r"([A-Za-z0-9_-]+)={0,2}")
_RSA = tuple(f"{kind}{bits}" for kind in ("RS", "PS") for bits in (256, 384, 512))
_NUMBERS: dict[str, tuple[tuple[str, ...], dict[str, tuple[int, int]]]] = {
    "RSA": (_RSA, {"n": (128, 2048), "e": (1, 8)}),
    "EC P-256": (("ES256",), {"x": (1, 32), "y": (1, 32)}),
    "EC P-384": (("ES384",), {"x": (1, 48), "y": (1, 48)}),
    "EC P-521": (("ES512",), {"x": (1, 66), "y": (1, 66)}),
    "OKP Ed25519": (("EdDSA",), {"x": (32, 32)}),
}
"""Of each kind of key and curve: the algorithms that it is for, and the least and most bytes of its numbers."""

Fingerprint = tuple[tuple[str, int, int, int], ...]


@dataclass(frozen=True)
class Key:
    """What is kept of a key."""

    id: str
    sha256: str
    """Of the whole key, in hexadecimal."""
    scopes: tuple[str, ...]
    """`predict:MODEL` or `admin:MODEL`; `*` for any model."""
    created: str
    expires: str | None = None
    """Both are times in UTC, ISO 8601."""

    def __post_init__(self) -> None:
        if not _ID.fullmatch(self.id):
            raise ServingError(f"key id {self.id!r}: letters, digits, dots, dashes and underscores, at most 63.")
        if not _SHA256.fullmatch(self.sha256):
            raise ServingError(f"key {self.id}: sha256 must be 64 hexadecimal digits.")
        if not self.scopes:
            raise ServingError(f"key {self.id}: give it a scope, such as predict:MODEL.")
        for scope in self.scopes:
            if not _SCOPE.fullmatch(scope):
                raise ServingError(
                    f"key {self.id}: scope {scope!r} is not predict:MODEL or admin:MODEL (* for any model)."
                )
        if self.expires is not None:
            _seconds_of(self.id, self.expires)

    @property
    def expires_at(self) -> int:
        """Unix seconds; 0: never. A time at or before their beginning is past, and must not read as never."""
        return max(1, _seconds_of(self.id, self.expires)) if self.expires else 0

    def grants(self, scope: str, model: str) -> bool:
        """Whether it may do `scope` ("predict" or "admin") with `model`."""
        return f"{scope}:{model}" in self.scopes or f"{scope}:*" in self.scopes


def new_key(
    file: Path, key_id: str, scopes: Sequence[str], *, valid_for: datetime.timedelta | None = None
) -> tuple[Key, str]:
    """Add a key to `file`, which is made if it isn't there; returns what is kept and the key itself.

    Raises `ServingError` if the id is taken or a scope is none.
    """
    now = datetime.datetime.now(datetime.UTC)
    text = PREFIX + base64.b32encode(secrets.token_bytes(_RANDOM_BYTES)).decode().lower()
    expires = _iso(now + valid_for) if valid_for is not None else None
    digest = hashlib.sha256(text.encode()).hexdigest()
    key = Key(key_id, digest, tuple(scopes), created=_iso(now), expires=expires)
    with _exclusively(file):
        keys = read_keys(file) if file.exists() else ()
        if any(other.id == key_id for other in keys):
            raise ServingError(f"{file} already has a key {key_id!r}; revoke it first, or choose another id.")
        _write_keys(file, (*keys, key))
    return key, text


def revoke_key(file: Path, key_id: str) -> None:
    """Remove a key from `file`; raises `ServingError` if it isn't there."""
    with _exclusively(file):
        keys = read_keys(file)
        left = tuple(key for key in keys if key.id != key_id)
        if len(left) == len(keys):
            known = ", ".join(key.id for key in keys) or "none"
            raise ServingError(f"{file} has no key {key_id!r}; it has: {known}.")
        _write_keys(file, left)


def read_keys(file: Path) -> tuple[Key, ...]:
    """The keys of `file`; raises `ServingError` if it can't be read or has the same id or key twice.

    None at all is a door that is closed to everybody, and what is left when the last key was revoked.
    """
    rows = _rows_of(file, "a file of keys as `slipway keys new` writes it", "the keys", "; make one: slipway keys new")
    keys = tuple(_key_of(file, place, row) for place, row in enumerate(rows, start=1))
    for name in ("id", "sha256"):
        values = [getattr(key, name) for key in keys]
        if len(set(values)) != len(values):
            raise ServingError(f"{file} has the same {name} twice.")
    return keys


def _key_of(file: Path, place: int, row: object) -> Key:
    """The key that `row` describes, the `place`th of `file`."""
    names = {field.name: field.default is MISSING for field in fields(Key)}
    if not isinstance(row, dict):
        wrong = "is no object"
    elif lacking := [name for name, needed in names.items() if needed and name not in row]:
        wrong = f"has no {lacking[0]!r}"
    elif unknown := [name for name in row if name not in names]:
        wrong = f"has {unknown[0]!r}, which means nothing"
    elif not isinstance(row["scopes"], list) or not all(isinstance(scope, str) for scope in row["scopes"]):
        wrong = "has scopes that are no list of texts"
    elif other := [name for name in names if name != "scopes" and not isinstance(row.get(name) or "", str)]:
        wrong = f"has another {other[0]} than a text"
    else:
        return Key(**{**row, "scopes": tuple(row["scopes"])})
    raise ServingError(f"{file} is not a file of keys as `slipway keys new` writes it: key {place} {wrong}.")


def _rows_of(file: Path, what: str, short: str, hint: str = "") -> list[Any]:
    """The list `keys` of the JSON in `file`; raises `ServingError` in one line if it isn't `what` it should be."""
    try:
        content = file.read_bytes()
    except OSError as error:
        raise ServingError(f"{short} can't be read: {file}: {error.strerror}{hint}.") from error
    if content.startswith(_UTF_16) or b"\0" in content:
        raise ServingError(f"{file} is not UTF-8, but looks like UTF-16; save it as UTF-8.")
    try:
        found = json.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ServingError(
            f"{file} is not UTF-8: line {line} has the byte 0x{content[error.start]:02x}; save it as UTF-8."
        ) from error
    except (ValueError, RecursionError) as error:
        wrong = f"line {error.lineno} is not JSON" if isinstance(error, json.JSONDecodeError) else "it is not JSON"
        raise ServingError(f"{file} is not {what}: {wrong}.") from error
    rows = found.get("keys") if isinstance(found, dict) else None
    # Whoever empties it by hand may leave either.
    if rows == {}:
        rows = []
    if not isinstance(rows, list):
        raise ServingError(f'{file} is not {what}: there is no list "keys" in it.')
    return rows


def read_jwks(file: Path) -> str:
    """The keys in `file` that can verify a token, as a JWKS.

    Others (for encryption, of kinds that Envoy doesn't know) are left out, as RFC 7517 has it; of a set with none that
    it can use, Envoy takes nothing and answers 500. Raises `ServingError` if that is all, or if a key must stay secret.
    """
    found = _rows_of(file, "a JSON Web Key Set (RFC 7517)", "the JWKS")
    if not all(isinstance(key, dict) and "kty" in key for key in found):
        raise ServingError(f'{file} is not a JSON Web Key Set (RFC 7517): a key in it has no "kty".')
    kinds = [key["kty"] for key in found]
    if not kinds:
        raise ServingError(f"{file} has no keys, so that no token would be accepted.")
    if "oct" in kinds or any("d" in key for key in found):
        raise ServingError(f"{file} has a secret in it; an endpoint needs public keys only (RSA, EC or OKP).")
    usable = [key for key in found if _verifies(key)]
    if not usable:
        raise ServingError(
            f"{file} has no key that a token can be verified with; those are RSA, EC (P-256, P-384, P-521) and Ed25519 "
            "with all their numbers, for signatures."
        )
    return json.dumps({"keys": usable})


def _verifies(key: dict[str, object]) -> bool:
    """Whether a JWK is a whole public key for signatures, of a kind that Envoy knows."""
    numbers = _NUMBERS.get(f"{key['kty']} {key.get('crv', '')}".strip())
    if numbers is None or key.get("use", "sig") != "sig" or not isinstance(key.get("kid", ""), str):
        return False
    algorithms, sizes = numbers
    return key.get("alg", algorithms[0]) in algorithms and all(
        least <= _length(key.get(name)) <= most for name, (least, most) in sizes.items()
    )


def _length(number: object) -> int:
    """Bytes of a number in base64url; 0 for what is none."""
    digits = _BASE64URL.fullmatch(number) if isinstance(number, str) else None
    return 3 * len(digits[1]) // 4 if digits is not None else 0


def fingerprint(door: FrontDoor) -> Fingerprint:
    """What the files of credentials look like from outside, for `changed`; costs a `stat` for each."""
    auth, tls = door.auth, door.tls
    files = [
        auth.keys if auth else None,
        auth.jwks if auth else None,
        *((tls.certificate, tls.key, tls.client_ca) if tls else ()),
    ]
    seen = []
    for file in filter(None, files):
        with contextlib.suppress(OSError):
            found = file.stat()
            seen.append((str(file), found.st_mtime_ns, found.st_size, found.st_ino))
    return tuple(seen)


def changed(door: FrontDoor, since: Fingerprint) -> bool:
    """Whether a file of credentials was written after `since`; then `write_configuration` has to be called again."""
    return fingerprint(door) != since


def _write_keys(file: Path, keys: Sequence[Key]) -> None:
    """At once or not at all: the endpoint may read it at any moment."""
    text = json.dumps({"keys": [asdict(key) for key in keys]}, indent=2) + "\n"
    number, name = tempfile.mkstemp(prefix=f".{file.name}.", dir=file.parent)
    try:
        with os.fdopen(number, "w", encoding="utf-8") as stream:
            stream.write(text)
        Path(name).replace(file)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def _exclusively(file: Path) -> Iterator[None]:
    """Keep two `slipway keys` from losing each other's key; the directory is locked, as the file is replaced."""
    import fcntl

    try:
        directory = os.open(file.parent, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise ServingError(f"{file.parent}: {error.strerror}.") from error
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        yield
    finally:
        os.close(directory)


def _iso(time: datetime.datetime) -> str:
    return time.isoformat(timespec="seconds").replace("+00:00", "Z")


def _seconds_of(key_id: str, text: str) -> int:
    try:
        found = datetime.datetime.fromisoformat(text)
    except (ValueError, TypeError) as error:
        raise ServingError(f"key {key_id}: {text!r} is not a time such as 2030-01-31T12:00:00Z.") from error
    if found.tzinfo is None:
        raise ServingError(f"key {key_id}: {text!r} needs a time zone, such as Z.")
    return int(found.timestamp())
