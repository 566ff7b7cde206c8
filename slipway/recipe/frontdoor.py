"""What a recipe may say about the front door: who is let in, over what, and how much."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from slipway.recipe.section import Section

_File = Annotated[str, Field(min_length=1)]
_Rate = Annotated[float, Field(gt=0, le=1_000_000)]


class Auth(Section):
    """Who may call. Files may change while the endpoint runs; relative ones are taken from the recipe's folder."""

    keyless: Literal["loopback", "never"] | None = None
    """If there are neither keys nor tokens: `loopback` lets in whoever is on this machine, `never` refuses to start;
    left out, `slipway serve` has to be told by `--keyless`. An address that others can reach is never served without
    credentials."""
    keys: _File | None = None
    """File of API keys, made by `slipway keys new`; it holds their hashes and scopes."""
    jwks: _File | None = None
    """File with the public keys (JSON Web Key Set) of who issues the tokens."""
    issuer: str | None = None
    """`iss` of the tokens."""
    audiences: list[str] = Field([])
    """A token's `aud` must be one of them."""
    clock_skew_s: Annotated[int, Field(ge=0, le=300)] = 30
    """By how much the issuer's clock may differ."""
    scope_claim: str = "scope"
    """Claim with the scopes, a list or words in a text: `predict:MODEL`, `admin:MODEL`, `*` for any model."""
    caller_claim: str = "sub"
    """Claim that limits and the access log know a bearer by."""

    @model_validator(mode="after")
    def _tokens_whole(self) -> Self:
        if self.jwks is not None and (self.issuer is None or not self.audiences):
            raise ValueError("jwks needs issuer and audiences, or tokens for other services would be accepted")
        if self.jwks is None and (self.issuer is not None or self.audiences):
            raise ValueError("issuer and audiences need jwks, the keys that tokens are verified with")
        return self

    @property
    def is_on(self) -> bool:
        """Whether callers need credentials."""
        return self.keys is not None or self.jwks is not None


class Tls(Section):
    """TLS 1.2 or newer, for HTTP and gRPC, when `certificate` and `key` are given. Files are read again on change."""

    certificate: _File | None = None
    """Certificate and chain, PEM."""
    key: _File | None = None
    """Its private key, PEM, not encrypted."""
    client_ca: _File | None = None
    """Mutual TLS: callers must show a certificate of one of these authorities, PEM."""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key belong together; give both or neither")
        if self.client_ca is not None and self.certificate is None:
            raise ValueError("client_ca needs certificate and key, the server's own")
        return self

    @property
    def is_on(self) -> bool:
        """Whether the endpoint speaks TLS only."""
        return self.certificate is not None


class Limits(Section):
    """How much is let in; the rest hears so at once (429 or 503, with `Retry-After`)."""

    slo_ms: Annotated[float, Field(gt=0)] | None = None
    """Latency that 99 % of the requests that are let in shall stay under, however many come; by default 100 ms or 20
    times the model's own time, whichever is longer. It sets how many requests may be in flight."""
    max_in_flight: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """Requests that may run or wait at most, whatever their latency; by default one for each instance
    and `max_queue`."""
    rate: _Rate | None = None
    """Requests/s of all callers together."""
    burst: Annotated[int, Field(ge=1)] | None = None
    """Requests at once before `rate` holds; by default a second's worth."""
    key_rate: _Rate | None = None
    """Requests/s of each key or bearer."""
    key_burst: Annotated[int, Field(ge=1)] | None = None
    """Requests at once before `key_rate` holds; by default a second's worth."""
