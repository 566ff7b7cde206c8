"""Texts to send, each with the label that the endpoint must answer.

They come from the bundle's own `expected.parquet`, so with the lengths of the domain, or from a file of the user's
where a bundle may not carry texts. A file that has no `predicted` column gets it from the bundle's model, which reads
nothing off the endpoint that is being tested.

While a new version is tried beside the old one, two models may answer. Columns `predicted:VERSION` say what each of
them must; an answer from a version without such a column is held to `predicted`.
"""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from loadtests.answers import answers
from loadtests.plan import count_texts
from loadtests.tables import read_table
from slipway.bundle import EXPECTED, Bundle
from slipway.errors import LoadTestError
from slipway.recipe import LoadTest

_VERSION = "predicted:"
_CLEAR_MARGIN = 1e-3
"""A text whose two best labels are nearer to each other is not sent: rounding may decide it differently in a batch."""


@dataclass(frozen=True)
class Texts:
    """Row by row: what is sent and what must come back."""

    sent: list[str]
    expected: list[str]
    by_version: Mapping[str, list[str]] = field(default_factory=dict)
    """Model version → what must come back from it, where it is another model than the bundle's."""

    def __len__(self) -> int:
        return len(self.sent)

    def expected_of(self, row: int, version: str) -> str:
        """The label that `version` must answer."""
        return self.by_version.get(version, self.expected)[row]


def load_texts(bundle: Bundle, file: Path | None = None) -> Texts:
    """The texts in `file` (Parquet, CSV or JSON lines with a column `text`), or else the bundle's.

    Raises `LoadTestError` that says what is missing and where.
    """
    source = file or bundle.path / EXPECTED
    if file is None and not source.is_file():
        raise LoadTestError(_no_texts(bundle))
    table = read_table(source)
    if "text" not in table.column_names:
        raise LoadTestError(f"{source} has no column 'text', only {', '.join(table.column_names) or 'none'}.")
    if table.num_rows == 0:
        raise LoadTestError(f"{source} has no rows." if file else _no_texts(bundle))
    sent = _strings(table, "text", source)
    blank = next((row for row, text in enumerate(sent) if not text.strip()), None)
    if blank is not None:
        raise LoadTestError(
            f"{source}: row {blank + 1} of column 'text' is blank, which every endpoint refuses; leave such rows out."
        )
    named = "predicted" in table.column_names
    expected = _strings(table, "predicted", source) if named else answers(bundle, sent).labels
    return Texts(sent, expected, _by_version(table, source))


def read_texts(file: Path) -> Texts:
    """What `write_texts` wrote to `file`."""
    table = read_table(file)
    return Texts(_strings(table, "text", file), _strings(table, "predicted", file), _by_version(table, file))


def prepared_texts(
    bundle: Bundle, section: LoadTest, file: Path | None = None, versions: Mapping[str, Bundle] | None = None
) -> Texts:
    """The texts of `load_texts` as `section.traffic` wants them, with the answers of other `versions` of the model.

    `cache-busting` puts a mark of its own in front of every text (in front, as the end of a long text is cut off) and
    has the bundle answer it, since a mark may change the answer. The marks differ from run to run: a server that kept
    the answers of the last one must not profit.
    """
    texts = load_texts(bundle, file)
    if section.traffic.mix == "cache-busting":
        count = count_texts(section, section.traffic.distinct)
        texts = _marked(bundle, texts, count, section.seed)
    given = versions or {}
    answered = {version: answers(other, texts.sent).labels for version, other in given.items()}
    return Texts(texts.sent, texts.expected, {**texts.by_version, **answered})


def write_texts(texts: Texts, file: Path) -> None:
    """Write `texts` so that `load_texts` and `read_texts` read them."""
    columns = {"text": texts.sent, "predicted": texts.expected}
    columns |= {f"{_VERSION}{version}": labels for version, labels in texts.by_version.items()}
    pq.write_table(pa.table({name: pa.array(values, pa.string()) for name, values in columns.items()}), file)


def _marked(bundle: Bundle, texts: Texts, count: int, seed: int) -> Texts:
    order = np.random.default_rng(abs(seed)).permutation(len(texts))
    run = secrets.token_hex(2)
    # Texts too close to call are left out, so a few more are made.
    made = count + count // 50 + 10
    sent = [f"{run}{number:x} {texts.sent[order[number % len(texts)]]}" for number in range(made)]
    answered = answers(bundle, sent)
    clear = np.flatnonzero(answered.margins >= _CLEAR_MARGIN)[:count]
    if len(clear) == 0:
        raise LoadTestError(f"The bundle {bundle.path} is sure of no text with a mark in front; use another mix.")
    return Texts([sent[row] for row in clear], [answered.labels[row] for row in clear])


def _by_version(table: pa.Table, source: Path) -> dict[str, list[str]]:
    return {
        name.removeprefix(_VERSION): _strings(table, name, source)
        for name in table.column_names
        if name.startswith(_VERSION)
    }


def _no_texts(bundle: Bundle) -> str:
    return (
        f"The bundle {bundle.path} carries no texts to send. Give a file with a column 'text' (--texts FILE), "
        "or export it again with test_texts above 0."
    )


def _strings(table: pa.Table, column: str, source: Path) -> list[str]:
    values: list[str] = table.column(column).to_pylist()
    bad = next((row for row, value in enumerate(values) if not isinstance(value, str)), None)
    if bad is not None:
        raise LoadTestError(f"{source}: row {bad + 1} of column {column!r} is {values[bad]!r}, not a string.")
    return values
