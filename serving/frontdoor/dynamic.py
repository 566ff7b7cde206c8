"""Writing the configuration: a bootstrap file, and the files that Envoy watches while it runs.

    DIRECTORY/envoy.json               the bootstrap; read once
    DIRECTORY/frontdoor/clusters.json  CDS  backends and their health checks
    DIRECTORY/frontdoor/routes.json    RDS  weights, shadows, scopes, API keys
    DIRECTORY/frontdoor/health.json    ECDS which backend the endpoint is as healthy as
    DIRECTORY/frontdoor/overload.json  ECDS bounds on requests in flight
    DIRECTORY/frontdoor/tokens.json    ECDS the JWKS, if tokens are taken
    DIRECTORY/frontdoor/certificate.json, authorities.json  SDS, under TLS

To change backends, weights, credentials or certificates of a running Envoy, call `write_configuration` again. Each
file is whole at any moment, but Envoy reads one after the other, and a route must not name a cluster that isn't there:
what is added comes first, what is removed goes last, and a call may do one of the two. A new backend is given weight
when its cluster is healthy, and removed after it had none.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from serving.frontdoor import admission, health, overload
from serving.frontdoor.clusters import clusters
from serving.frontdoor.credentials import Fingerprint, Key, fingerprint, read_jwks, read_keys
from serving.frontdoor.door import FrontDoor
from serving.frontdoor.envoy import bootstrap
from serving.frontdoor.routes import routes
from serving.frontdoor.tls import AUTHORITIES, CERTIFICATE, require_tls, secrets
from serving.protocol import Json

BOOTSTRAP = "envoy.json"
WATCHED = "frontdoor"


@dataclass(frozen=True)
class Credentials:
    """What the files of credentials held when they were read."""

    seen: Fingerprint
    keys: tuple[Key, ...]
    jwks: str | None


def read_credentials(door: FrontDoor) -> Credentials:
    """Those of `door`; raises `ServingError` if a file is not what it should be."""
    # Before they are read: what changes meanwhile is then read again.
    seen = fingerprint(door)
    auth = door.auth
    if door.tls is not None:
        require_tls(door.tls)
    return Credentials(
        seen,
        read_keys(auth.keys) if auth and auth.keys else (),
        read_jwks(auth.jwks) if auth and auth.jwks else None,
    )


def write_configuration(door: FrontDoor, directory: Path, credentials: Credentials | None = None) -> Path:
    """Write everything for `door` into `directory`, whole or not at all, and return the bootstrap file.

    Without `credentials` they are read; raises `ServingError` as `read_credentials` does, and then nothing was changed.
    """
    watched = directory / WATCHED
    credentials = credentials or read_credentials(door)
    resources = _resources(door, watched, credentials)
    watched.mkdir(mode=0o700, exist_ok=True)
    order = sorted(resources)
    order.remove("routes")
    order.insert(0 if _removes_backends(resources["clusters"], watched) else len(order), "routes")
    for name in order:
        _replace(watched / f"{name}.json", _response(resources[name], _version(name, credentials)))
    file = directory / BOOTSTRAP
    _replace(file, json.dumps(bootstrap(door, watched), ensure_ascii=False))
    return file


def _resources(door: FrontDoor, directory: Path, credentials: Credentials) -> dict[str, list[Json]]:
    """What each watched file holds."""
    resources = {
        "clusters": clusters(door),
        "routes": [routes(door, credentials.keys)],
        health.FILTER: [health.health_filter(door)],
        overload.FILTER: [overload.overload_filter(door)],
        **{name: [secret] for name, secret in secrets(door, directory).items()},
    }
    if door.auth and credentials.jwks is not None:
        resources[admission.TOKENS] = [admission.token_filter(door.auth, credentials.jwks)]
    return resources


def _version(name: str, credentials: Credentials) -> str:
    """Secrets name files; what they are made from changes when one of those does."""
    return repr(credentials.seen) if name in (CERTIFICATE, AUTHORITIES) else ""


def _response(resources: list[Json], made_from: str) -> str:
    text = json.dumps(resources, ensure_ascii=False)
    version = hashlib.sha256((text + made_from).encode()).hexdigest()[:16]
    return json.dumps({"version_info": version, "resources": resources}, ensure_ascii=False)


def _removes_backends(new: list[Json], directory: Path) -> bool:
    try:
        old = json.loads((directory / "clusters.json").read_text(encoding="utf-8"))["resources"]
    except FileNotFoundError:
        return False
    return not {cluster["name"] for cluster in old} <= {cluster["name"] for cluster in new}


def _replace(file: Path, text: str) -> None:
    """Put `text` there by a rename, which is what Envoy notices; nothing if it is there already."""
    if file.exists() and file.read_text(encoding="utf-8") == text:
        return
    # Keys' hashes and the whereabouts of certificates are nobody else's business.
    beside = file.with_name(f".{file.name}.new")
    beside.touch(mode=0o600)
    beside.write_text(text, encoding="utf-8")
    beside.replace(file)
