"""What a recipe may say about what is sent: which texts, to whom, with which credentials."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from slipway.recipe.arrivals import by_name
from slipway.recipe.section import Section


class Natural(Section):
    """Every text once in random order, then again in another: the bundle's own lengths."""

    mix: Literal["natural"] = "natural"


class CacheBusting(Section):
    """Texts that were never sent before: a mark in front makes each its own, and the bundle answers them beforehand."""

    mix: Literal["cache-busting"] = "cache-busting"
    distinct: Annotated[int, Field(ge=1, le=1_000_000)] = 20_000
    """Texts that are prepared, at most; a run with more requests goes round, always in the same order."""


class HotKeys(Section):
    """A few texts get most of the requests, by Zipf's law."""

    mix: Literal["hot-keys"] = "hot-keys"
    exponent: Annotated[float, Field(gt=0, le=10)] = 1.1
    """The text of rank k is asked for k^-exponent times as often as the first."""


Mix = Natural | CacheBusting | HotKeys
Traffic = Annotated[Mix, Field(discriminator="mix"), by_name("mix")]


class Credentials(Section):
    """What the caller shows. The secret itself stands in the environment or in a file, never here."""

    kind: Literal["api-key", "bearer"] = "api-key"
    """`api-key`: as the header below; `bearer`: as `authorization: Bearer …`."""
    header: Annotated[str, Field(pattern="^[a-z0-9-]+$")] = "x-api-key"
    """Where an API key goes."""
    environment: str | None = None
    """Name of the environment variable that holds it."""
    file: str | None = None
    """Path of the file that holds it."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.environment is None) == (self.file is None):
            raise ValueError("credentials come from one place: set environment or file")
        return self


class ClientTls(Section):
    """Certificates for an address that begins with https://."""

    ca: str | None = None
    """Path of the authority's certificate, PEM; the system's authorities unless told."""
    certificate: str | None = None
    """Path of the client's own certificate, PEM, for mutual TLS."""
    key: str | None = None
    """Path of its key, PEM."""
    server_name: str | None = None
    """Name that the server's certificate must have; the address's host unless told."""

    @model_validator(mode="after")
    def _both_or_none(self) -> Self:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("a client's certificate needs its key: set both certificate and key")
        return self
