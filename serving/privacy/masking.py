"""Masking: find what identifies a person, and put a tag in its place.

`mask` needs the standard library alone, so that logs can be masked wherever the endpoint runs. Capture adds the
recognizers of presidio-analyzer (`presidio`) to it; a detector is anything that finds spans.

Names of people and addresses of houses are not found: that takes a language model, not a pattern.
"""

import bisect
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from serving.privacy.chinese import CHINESE
from serving.privacy.folding import fold
from serving.privacy.patterns import AFTER_WORD, GENERAL, Pattern

_HASH = re.compile(r"(?<![0-9A-Za-z])(?=\d{0,127}[A-F])[0-9A-F]{32,128}(?![0-9A-Za-z])", re.IGNORECASE | re.ASCII)
"""From MD5 to SHA-512 in hexadecimal: one in some hundred has digits in it that look like a telephone number."""


@dataclass(frozen=True, order=True)
class Found:
    """A span of a folded text, and what it is."""

    start: int
    end: int
    tag: str


class Detector(Protocol):
    """Finds identifiers of some kinds."""

    def find(self, text: str) -> Iterator[Found]:
        """Spans of the folded `text`; they may overlap."""
        ...


@dataclass(frozen=True)
class PatternDetector:
    """Finds what `patterns` describe; of two that claim the same characters, the earlier pattern's tag stays."""

    patterns: Sequence[Pattern]

    def find(self, text: str) -> Iterator[Found]:
        """Pattern by pattern."""
        for one in self.patterns:
            for start, end in one.find(text):
                yield Found(start, end, one.tag)


@dataclass(frozen=True)
class Masker:
    """Masks what any of its detectors finds."""

    detectors: Sequence[Detector]

    def mask(self, text: str) -> str:
        """`text` with a tag such as `<PHONE>` in place of each identifier; everything else stays as it is."""
        folded = fold(text)
        found = [one for detector in self.detectors for one in detector.find(folded.text)]
        if found:
            found = list(_outside_hashes(folded.text, found))
        if not found:
            return text
        parts, place = [], 0
        for merged in _merge(found):
            start, end = folded.span(merged.start, merged.end)
            parts += [text[place:start], f"<{merged.tag}>"]
            place = end
        return "".join([*parts, text[place:]])


def _outside_hashes(text: str, found: Sequence[Found]) -> Iterator[Found]:
    """Those of `found` that are no mere part of a hash; one that is a secret as a whole is."""
    hashes = [match.span() for match in _HASH.finditer(text)]
    for one in found:
        within = bisect.bisect_right(hashes, (one.start, len(text))) - 1
        start, end = hashes[within] if within >= 0 else (0, 0)
        if one.end > end or (one.start, one.end) == (start, end):
            yield one


def _merge(found: Sequence[Found]) -> Iterator[Found]:
    """Spans without overlap, in order: what overlaps becomes one, named after what was found first."""
    rank = {one: place for place, one in reversed(list(enumerate(found)))}
    current: Found | None = None
    for one in sorted(found):
        if current is None or one.start >= current.end:
            if current is not None:
                yield current
            current, named = one, rank[one]
        else:
            tag = one.tag if rank[one] < named else current.tag
            named = min(named, rank[one])
            current = Found(current.start, max(current.end, one.end), tag)
    if current is not None:
        yield current


PATTERNS = PatternDetector((*CHINESE, *GENERAL, *AFTER_WORD))
_MASKER = Masker((PATTERNS,))


def mask(text: str) -> str:
    """`text` without what the patterns know; see `Masker.mask`."""
    return _MASKER.mask(text)
