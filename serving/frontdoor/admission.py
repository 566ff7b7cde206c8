"""Admission: the filters that decide who is let in, before a body is read.

| considered | why (not) |
| --- | --- |
| `api_key_auth` | keys in clear text in the configuration; marked as work in progress, outside Envoy's threat model |
| `ext_authz` | any logic, but a server of our own in the path of every request, to be kept alive as Triton is |
| `rbac` | matches claims and headers well; can't hash a key, so keys would stand in clear text |
| `jwt_authn` | used for tokens: verified in C++, JWKS local, issuer, audience and clock skew checked |
| Lua | used for keys and scopes: `admission.lua` hashes what the caller sent and looks it up |

Keys are 160 random bits, so one SHA-256 without salt is enough: there is nothing to guess from the hash, and looking
up a hash tells nothing by its timing about the key. It costs some microseconds a request under LuaJIT.

Everything here changes while requests run: the keys are in the route table, the JWKS in a filter file.
"""

from importlib import resources

from serving.frontdoor.credentials import Key
from serving.frontdoor.door import Auth, FrontDoor
from serving.frontdoor.xds import extension, filter_resource
from serving.protocol import Json

ADMISSION = "admission"
TOKENS, TOKENS_TYPE = "tokens", "extensions.filters.http.jwt_authn.v3.JwtAuthentication"
CALLER_KEY = {"key": "slipway", "path": [{"key": "caller"}]}
"""Where in a request's metadata the caller's id is, for limits and the access log."""


def admission_filter() -> Json:
    """The filter that runs `admission.lua`; what it decides by is `admission_settings`."""
    return extension(
        ADMISSION,
        "extensions.filters.http.lua.v3.Lua",
        default_source_code={"inline_string": lua("admission.lua")},
    )


def admission_settings(door: FrontDoor, keys: tuple[Key, ...]) -> Json:
    """What `admission.lua` knows: a key that may do nothing with this model is known, so that it gets 403, not 401."""
    auth = door.auth
    settings: Json = {"auth": auth is not None, "model": door.model, "timeout_ms": 1000 * door.timeout_s}
    if auth is None:
        return settings
    ways = []
    if auth.keys is not None:
        ways.append("an API key in x-api-key or as a bearer token")
    if auth.jwks is not None:
        ways.append(f"a bearer token of {auth.issuer}")
        settings |= {"tokens": True, "scope claim": auth.scope_claim, "caller claim": auth.caller_claim}
    settings["how"] = ", or ".join(ways)
    for key in keys:
        settings[f"key {key.sha256}"] = {
            "id": key.id,
            "predict": key.grants("predict", door.model),
            "admin": key.grants("admin", door.model),
            "expires": key.expires_at,
        }
    return settings


def token_filter(auth: Auth, jwks: str) -> Json:
    """The filter that verifies bearer tokens against `jwks`, JSON.

    It never refuses: a bearer may also be an API key, so `admission.lua` reads what was found, and why not.
    """
    provider = {
        "issuer": auth.issuer,
        "audiences": list(auth.audiences),
        "local_jwks": {"inline_string": jwks},
        "clock_skew_seconds": auth.clock_skew_s,
        "require_expiration": True,
        # As far as `admission.lua`, which removes it.
        "forward": True,
        # Without it, a query parameter would be taken as well. A scheme is written in any case (RFC 9110, 11.1), a
        # prefix is not.
        "from_headers": [
            {"name": "Authorization", "value_prefix": scheme} for scheme in ("Bearer ", "bearer ", "BEARER ")
        ],
        "payload_in_metadata": "claims",
        "failed_status_in_metadata": "failure",
    }
    either = [{"provider_name": TOKENS}, {"allow_missing_or_failed": {}}]
    return filter_resource(
        TOKENS,
        TOKENS_TYPE,
        providers={TOKENS: provider},
        rules=[{"match": {"prefix": "/"}, "requires": {"requires_any": {"requirements": either}}}],
    )


def lua(name: str) -> str:
    """The script `name` of this package."""
    return resources.files("serving.frontdoor").joinpath(name).read_text(encoding="utf-8")
