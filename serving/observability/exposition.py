"""Several pages of metrics become one, in Prometheus' text format (version 0.0.4).

That format wants one `# TYPE` for a name and all its samples after it, so pages can't simply be put one after another
when two Tritons serve side by side. Lines are moved and given labels, never parsed into numbers: what a source said is
what is read. `prometheus_client` would parse and print them again, which takes several times as long, and is one more
package where the endpoint runs.

Names can't collide unnoticed: those of Triton begin with `nv_`, Envoy's with `envoy_`, ours with `slipway_`. A family
that a source before has given with a different type is left out, and named in `Page.conflicts`.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_LE = re.compile(r'le="([^"]*)",?')
_PARTS = ("_bucket", "_sum", "_count")


@dataclass
class Family:
    """All series of one name."""

    name: str
    kind: str = "untyped"
    about: str = ""
    samples: list[str] = field(default_factory=list)

    def lines(self) -> Iterator[str]:
        """As the format has them."""
        if self.about:
            yield f"# HELP {self.name} {self.about}"
        yield f"# TYPE {self.name} {self.kind}"
        yield from self.samples


class Page:
    """A page that grows by the pages of its sources."""

    def __init__(self) -> None:
        self._families: dict[str, Family] = {}
        self.conflicts: set[str] = set()
        """Families that were left out."""

    def add(self, text: str, labels: dict[str, str] | None = None) -> None:
        """Add a source's page, with `labels` on every series of it."""
        written = ",".join(f'{name}="{_escaped(value)}"' for name, value in (labels or {}).items())
        for family in _with_histograms(_families(text)):
            known = self._families.setdefault(family.name, Family(family.name, family.kind, family.about))
            if known.kind != family.kind:
                self.conflicts.add(family.name)
                continue
            known.samples += [_labelled(sample, written) for sample in family.samples]

    def gauge(self, name: str, about: str, value: float, **labels: str) -> None:
        """Add one value of our own."""
        family = self._families.setdefault(name, Family(name, "gauge", about))
        written = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels.items())
        family.samples.append(_labelled(f"{name} {value:g}", written))

    def text(self) -> str:
        """The whole page."""
        return "".join(f"{line}\n" for family in self._families.values() for line in family.lines())


def _families(text: str) -> list[Family]:
    families: dict[str, Family] = {}
    current = Family("")
    for line in text.split("\n"):
        if line.startswith(("# HELP ", "# TYPE ")):
            _, what, name, *rest = line.split(" ", 3)
            current = families.setdefault(name, Family(name))
            if what == "TYPE":
                current.kind = rest[0].strip() if rest else "untyped"
            else:
                current.about = rest[0] if rest else ""
        elif line and line[0] != "#" and (found := _NAME.match(line)):
            name = found.group()
            if name != current.name and not (name.startswith(current.name) and name[len(current.name) :] in _PARTS):
                current = families.setdefault(name, Family(name))
            current.samples.append(line)
    return [family for family in families.values() if family.samples]


def _with_histograms(families: Sequence[Family]) -> Iterator[Family]:
    """Counters that are the parts of a histogram become one again."""
    by_name = {family.name: family for family in families}
    whole = {
        name.removesuffix("_bucket")
        for name, family in by_name.items()
        if name.endswith("_bucket")
        and family.kind == "counter"
        and all(name.removesuffix("_bucket") + part in by_name for part in _PARTS)
    }
    for family in families:
        name = next((family.name.removesuffix(part) for part in _PARTS if family.name.endswith(part)), "")
        if name not in whole:
            yield family
        elif family.name.endswith("_bucket"):
            samples = sorted(family.samples, key=_bucket_order)
            samples += by_name[f"{name}_sum"].samples + by_name[f"{name}_count"].samples
            yield Family(name, "histogram", family.about, samples)


def _bucket_order(sample: str) -> tuple[str, float]:
    """Series by series, and in each by the bucket's bound, as people read it."""
    found = _LE.search(sample)
    bound = float(found.group(1)) if found else 0.0
    return _LE.sub("", sample.rpartition(" ")[0], count=1), bound


def _labelled(sample: str, labels: str) -> str:
    """`sample` with `labels` before its own."""
    if not labels:
        return sample
    end = _NAME.match(sample).end()  # type: ignore[union-attr]  # it is a sample because it begins with a name
    if sample[end] != "{":
        return f"{sample[:end]}{{{labels}}}{sample[end:]}"
    comma = "" if sample[end + 1] == "}" else ","
    return f"{sample[: end + 1]}{labels}{comma}{sample[end + 1 :]}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
