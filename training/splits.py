"""Train, dev and test without leakage.

A text that is in two splits is learned by heart in one and "predicted" in the other, so first each text is
made to occur once (`text_normalization.py` says which texts are the same), then the table is cut:

- by default at random within each label (stratified);
- with a time column by time: the oldest rows train, the newest test, as the model will meet texts from after
  it was trained. Rows of one time stay together, so the shares are met as nearly as the times allow. Labels
  fall as they do.
- where the source says itself which rows are dev or test, as it says; what is missing is cut off train.

Every order and every choice comes from a hash of the text and the seed, never from the place of a row in the
file. So the same rows in another order, or in several files, give the same splits, and rows that are added
move few others. The price is a hash per row: about 2 s per million.

Of a text with several labels the majority label stays; on a tie all its rows go, as one of them is wrong and
nobody can say which. A test (or dev) set that the source gives stays as it is, repetitions and all, so that a
score on it compares with other people's; its texts are removed from train instead.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from slipway.errors import DataError
from slipway.progress import track
from slipway.recipe import Data
from training.table_columns import SplitName
from training.tables import Table
from training.text_normalization import duplicate_key

_CUT: tuple[SplitName, ...] = ("dev", "test")
_NAMES: tuple[SplitName, ...] = ("train", *_CUT)


@dataclass(frozen=True)
class Split:
    """Rows of one split: `targets[i]` is the index, in `Splits.labels`, of the label of `texts[i]`."""

    texts: list[str]
    targets: list[int]


@dataclass(frozen=True)
class Splits:
    """The table, cut. `report` is what was read, removed and cut, for a person and for the manifest."""

    train: Split
    dev: Split
    test: Split
    labels: list[str]
    report: dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Row:
    text: str
    label: str
    key: str
    order: bytes
    time: float
    split: SplitName | None


def split_table(table: Table, section: Data, seed: int) -> Splits:
    """Cut `table` by `section.split` (or time, or as given), reproducibly from `seed`.

    Raises `DataError` if a split would be empty, if a label has too few rows to be in every split, or if dev
    or test has a label that train never had.
    """
    rows, removed = _without_duplicates(_rows(table, seed))
    kept_before_sample = len(rows)
    if section.max_rows is not None:
        rows = _sample(rows, section)
    pool = [row for row in rows if row.split in (None, "train")]
    given = {name: [row for row in rows if row.split == name] for name in _CUT}
    to_cut = [name for name in _CUT if not given[name]]
    labels = _labels_in_order(pool, section)
    _require_rows(pool, labels, to_cut, section)
    _require_learned({"train": pool, **given}, section)
    shares = {name: getattr(section.split, name) for name in to_cut}
    cut = _by_time(pool, shares, section) if table.times is not None else _stratified(pool, shares)
    parts = given | cut
    _require_learned(parts, section)
    index = {label: place for place, label in enumerate(labels)}
    splits = {
        name: Split([row.text for row in parts[name]], [index[row.label] for row in parts[name]]) for name in _NAMES
    }
    how = "chronological" if table.times is not None else "stratified"
    report = {
        "source_sha256": table.sha256,
        "seed": seed,
        "kind": {name: how if name in to_cut or name == "train" else "given" for name in _NAMES},
        "rows_read": table.rows_read,
        "rows_dropped": table.dropped,
        **removed,
        "rows_not_sampled": kept_before_sample - len(rows),
        "rows": {name: len(parts[name]) for name in _NAMES},
        "labels": {name: _counts(parts[name], labels) for name in _NAMES},
    }
    return Splits(splits["train"], splits["dev"], splits["test"], labels, report)


def _rows(table: Table, seed: int) -> list[_Row]:
    times: Sequence[float] = table.times if table.times is not None else [0.0] * len(table.texts)
    salt = str(seed).encode()
    rows = []
    columns = zip(table.texts, table.labels, times, table.given, strict=True)
    for text, label, time, split in track(columns, "Looking for duplicates", len(table.texts)):
        key = duplicate_key(text)
        order = hashlib.blake2b(key.encode(), digest_size=16, key=salt).digest()
        rows.append(_Row(text, label, key, order, time, split))
    return rows


def _without_duplicates(rows: list[_Row]) -> tuple[list[_Row], dict[str, int]]:
    """Rows whose texts are in one split only, and how many of which kind were removed.

    Test first, then dev: what they have as given stays, and goes from the splits after them.
    """
    kept: list[_Row] = []
    counts = dict.fromkeys(
        ("duplicates_removed", "duplicates_across_splits", "conflicting_texts", "conflicting_rows"), 0
    )
    taken: set[str] = set()
    for name in ("test", "dev"):
        of_split = [row for row in rows if row.split == name]
        unseen = [row for row in of_split if row.key not in taken]
        counts["duplicates_across_splits"] += len(of_split) - len(unseen)
        taken.update(row.key for row in unseen)
        kept += unseen
    first: dict[str, _Row] = {}
    repeated: defaultdict[str, list[_Row]] = defaultdict(list)
    for row in rows:
        if row.split in _CUT:
            continue
        if row.key in taken:
            counts["duplicates_across_splits"] += 1
        elif first.setdefault(row.key, row) is not row:
            repeated[row.key].append(row)
    for key, more in repeated.items():
        group = [first.pop(key), *more]
        settled, losers = _settle(group)
        counts["conflicting_texts"] += bool(losers)
        counts["conflicting_rows"] += losers
        if settled is not None:
            first[key] = settled
            counts["duplicates_removed"] += len(group) - losers - 1
    kept += first.values()
    counts["duplicates_removed"] += counts["duplicates_across_splits"]
    return kept, counts


def _settle(group: list[_Row]) -> tuple[_Row | None, int]:
    """The one row that stays of those with the same text (the oldest), and how many went for their label."""
    ranked = Counter(row.label for row in group).most_common(2)
    if len(ranked) == 2 and ranked[0][1] == ranked[1][1]:
        return None, len(group)
    winners = [row for row in group if row.label == ranked[0][0]]
    return min(winners, key=lambda row: (row.time, row.text)), len(group) - len(winners)


def _sample(rows: list[_Row], section: Data) -> list[_Row]:
    """`section.max_rows` of the rows, each label its share; rows of `test_source` all stay, uncounted."""
    exempt = [row for row in rows if section.test_source is not None and row.split == "test"]
    strata: defaultdict[tuple[str, str], list[_Row]] = defaultdict(list)
    for row in rows:
        if section.test_source is None or row.split != "test":
            strata[(row.split or "", row.label)].append(row)
    total = sum(map(len, strata.values()))
    if section.max_rows is None or total <= section.max_rows:
        return rows
    names = sorted(strata)
    taken = _quotas([len(strata[name]) for name in names], section.max_rows / total)
    chosen = [row for name, count in zip(names, taken, strict=True) for row in _shuffled(strata[name])[:count]]
    return exempt + chosen


def _stratified(pool: list[_Row], shares: dict[SplitName, float]) -> dict[SplitName, list[_Row]]:
    """Cut each share off `pool`, within one row of it in every label, and at least a row."""
    by_label: defaultdict[str, list[_Row]] = defaultdict(list)
    for row in pool:
        by_label[row.label].append(row)
    names = sorted(by_label)
    sizes = [len(by_label[name]) for name in names]
    counts = {part: [max(1, count) for count in _quotas(sizes, share)] for part, share in shares.items()}
    parts: dict[SplitName, list[_Row]] = {part: [] for part in (*shares, "train")}
    for place, name in enumerate(names):
        wanted = {part: counts[part][place] for part in shares}
        while wanted and sum(wanted.values()) >= sizes[place]:
            wanted[max(wanted, key=lambda part: wanted[part])] -= 1
        rest = _shuffled(by_label[name])
        for part, count in wanted.items():
            parts[part] += rest[:count]
            rest = rest[count:]
        parts["train"] += rest
    return {part: _shuffled(rows) for part, rows in parts.items()}


def _by_time(pool: list[_Row], shares: dict[SplitName, float], section: Data) -> dict[SplitName, list[_Row]]:
    """Cut each share off the newest end of `pool`, where the time changes nearest to it."""
    ordered = sorted(pool, key=attrgetter("time", "order"))
    changes = [place for place in range(1, len(ordered)) if ordered[place].time != ordered[place - 1].time]
    if len(changes) < len(shares):
        raise DataError(
            f"{section.source}: column {section.time!r} (data.time) has {len(changes) + 1} different times; "
            f"cutting off {' and '.join(shares)} without tearing rows of one time apart takes at least "
            f"{len(shares) + 1}."
        )
    parts: dict[SplitName, list[_Row]] = {}
    end, newer = len(ordered), 0.0
    for cuts_left, (part, share) in zip(reversed(range(len(shares))), reversed(shares.items()), strict=True):
        newer += share
        target = len(ordered) * (1 - newer)
        possible = [place for place in changes if place < end][cuts_left:]
        start = min(possible, key=lambda place: abs(place - target))
        parts[part] = ordered[start:end]
        end = start
    return parts | {"train": ordered[:end]}


def _quotas(sizes: list[int], share: float) -> list[int]:
    """How many to take of each size so that each is within one of its share and the sum is the share of the
    sum.

    Hamilton's method: whole parts first, the rest to the largest remainders.
    """
    exact = [size * share for size in sizes]
    counts = [int(value) for value in exact]
    by_remainder = sorted(range(len(sizes)), key=lambda place: counts[place] - exact[place])
    for place in by_remainder[: max(0, round(sum(exact)) - sum(counts))]:
        counts[place] += 1
    return counts


def _shuffled(rows: Iterable[_Row]) -> list[_Row]:
    return sorted(rows, key=attrgetter("order"))


def _labels_in_order(pool: list[_Row], section: Data) -> list[str]:
    """In the order of `classes` if given, by value if they are integers, else by name."""
    found = {row.label for row in pool}
    if section.classes is not None:
        return list(section.classes)
    if all(label.removeprefix("-").isdecimal() for label in found):
        return sorted(found, key=lambda label: (int(label), label))
    return sorted(found)


def _require_rows(pool: list[_Row], labels: list[str], to_cut: list[SplitName], section: Data) -> None:
    """Each label must have a row for train and for each split that is cut off it."""
    counts = Counter(row.label for row in pool)
    if len(labels) < 2:
        raise DataError(
            f"{section.source}: after duplicates and contradictions were removed, {len(pool):,} rows with "
            f"{'the one label ' + repr(labels[0]) if labels else 'no label'} are left to train on; two "
            "labels are needed."
        )
    few = [label for label in labels if counts[label] < len(to_cut) + 1]
    if few:
        shown = ", ".join(f"{label!r} ({counts[label]})" for label in few[:5]) + (", …" if len(few) > 5 else "")
        raise DataError(
            f"{section.source}: too few rows, after duplicates were removed, of the "
            f"label{'s' * (len(few) > 1)} {shown}; each needs at least {len(to_cut) + 1}, one for each of "
            f"{', '.join(['train', *to_cut])}. Add rows, or leave the label out."
        )


def _require_learned(parts: Mapping[SplitName, list[_Row]], section: Data) -> None:
    """Dev and test may only ask for labels that train has."""
    learned = {row.label for row in parts["train"]}
    for name in _CUT:
        strange = Counter(row.label for row in parts[name] if row.label not in learned)
        if strange:
            shown = ", ".join(f"{label!r} ({count} rows)" for label, count in strange.most_common(5))
            raise DataError(
                f"{section.source}: {name} has labels that train never had: {shown}. Train has "
                f"{', '.join(map(repr, sorted(learned)[:12]))}."
            )


def _counts(rows: list[_Row], labels: list[str]) -> dict[str, int]:
    counts = Counter(row.label for row in rows)
    return {label: counts[label] for label in labels}
