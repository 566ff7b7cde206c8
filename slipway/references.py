"""References to models and data: `hub:org/name@revision`, `file:path`, `pypi:name==version/path`.

Only their grammar; `slipway.assets` fetches them.
"""

import re
from dataclasses import dataclass
from typing import Literal, Self

_HUB = re.compile(r"^(?P<name>[\w.-]+(?:/[\w.-]+)?)@(?P<version>[\w./-]+)$")
_PYPI = re.compile(r"^(?P<name>[A-Za-z0-9][\w.-]*)==(?P<version>[\w.!+-]+)/(?P<path>.+)$")

FORMS = "hub:org/name@revision, file:path, or pypi:name==version/path"


@dataclass(frozen=True)
class Reference:
    """A parsed reference. `version` is a hub revision or a package version; `path` is inside a package or on disk."""

    scheme: Literal["hub", "file", "pypi"]
    name: str = ""
    version: str = ""
    path: str = ""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse `text`; raises `ValueError` that says which forms there are."""
        scheme, colon, rest = text.partition(":")
        if scheme == "file" and colon and rest:
            return cls("file", path=rest)
        if scheme == "pypi" and (match := _PYPI.match(rest)):
            return cls("pypi", **match.groupdict())
        if scheme == "hub" and (match := _HUB.match(rest)):
            return cls("hub", **match.groupdict())
        if scheme == "hub" and rest and "@" not in rest:
            raise ValueError(f"{text!r} has no revision; write {text}@<commit> so that it can't change under you")
        raise ValueError(f"{text!r} is not a reference; allowed are {FORMS}")

    def __str__(self) -> str:
        """The reference as it is written in a recipe."""
        if self.scheme == "file":
            return f"file:{self.path}"
        if self.scheme == "pypi":
            return f"pypi:{self.name}=={self.version}/{self.path}"
        return f"hub:{self.name}@{self.version}"
