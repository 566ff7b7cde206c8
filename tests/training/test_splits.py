"""Splits: nothing in two of them, the same from the same seed, and an error where they can't be cut."""

from collections import Counter
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from slipway.errors import DataError
from slipway.recipe import Data
from training.splits import Splits, split_table
from training.tables import Table
from training.text_normalization import duplicate_key

pytestmark = pytest.mark.unit


def data(**fields: Any) -> Data:
    return Data.model_validate({"source": "file:t.csv", **fields})


def table(rows: list[tuple[str, str]], times: list[float] | None = None, given: list[Any] | None = None) -> Table:
    texts, labels = [text for text, _ in rows], [label for _, label in rows]
    return Table(texts, labels, times, given or [None] * len(rows), len(rows))


def numbered(count: int, labels: str = "ab") -> list[tuple[str, str]]:
    return [(f"text number {i}", labels[i % len(labels)]) for i in range(count)]


def rows_of(splits: Splits, name: str) -> list[tuple[str, str]]:
    split = getattr(splits, name)
    return [(text, splits.labels[target]) for text, target in zip(split.texts, split.targets, strict=True)]


def texts_of(splits: Splits, name: str) -> set[str]:
    return set(getattr(splits, name).texts)


texts = st.text(st.sampled_from("aA bé!.😀好 \u200b"), min_size=1, max_size=6).filter(str.strip)
rows = st.lists(st.tuples(texts, st.sampled_from("xyz")), min_size=30, max_size=80)


def cut(some: list[tuple[str, str]], seed: int = 0, **fields: Any) -> Splits:
    try:
        return split_table(table(some), data(**fields), seed)
    except DataError:
        assume(False)
        raise


class TestProperties:
    @given(rows)
    def test_no_text_is_in_two_splits_nor_twice_in_one(self, some: list[tuple[str, str]]) -> None:
        splits = cut(some)
        keys = [duplicate_key(text) for name in ("train", "dev", "test") for text in getattr(splits, name).texts]
        assert len(keys) == len(set(keys))

    @given(rows)
    def test_every_row_is_in_a_split_or_counted_as_removed(self, some: list[tuple[str, str]]) -> None:
        splits = cut(some)
        removed = splits.report["duplicates_removed"] + splits.report["conflicting_rows"]
        assert sum(splits.report["rows"].values()) + removed == len(some)
        assert set(rows_of(splits, "train") + rows_of(splits, "dev") + rows_of(splits, "test")) <= set(some)

    @given(rows, st.randoms(), st.integers(0, 2**32 - 1))
    def test_the_order_of_the_rows_does_not_matter(self, some: list[tuple[str, str]], random: Any, seed: int) -> None:
        shuffled = list(some)
        random.shuffle(shuffled)
        one, other = cut(some, seed), cut(shuffled, seed)
        assert (one.train, one.dev, one.test, one.labels) == (other.train, other.dev, other.test, other.labels)

    @given(
        st.lists(st.integers(10, 60), min_size=2, max_size=4),
        st.sampled_from([0.1, 0.15, 0.25]),
        st.sampled_from([0.1, 0.2, 0.3]),
    )
    def test_every_label_has_its_share_within_one_row(self, sizes: list[int], dev: float, test: float) -> None:
        some = [(f"{label} {i}", str(label)) for label, size in enumerate(sizes) for i in range(size)]
        splits = cut(some, split={"dev": dev, "test": test})
        for name, share in (("dev", dev), ("test", test)):
            counts = Counter(label for _, label in rows_of(splits, name))
            for label, size in enumerate(sizes):
                assert abs(counts[str(label)] - size * share) <= 1
            assert abs(sum(counts.values()) - sum(sizes) * share) <= 1

    @given(st.lists(st.integers(0, 12), min_size=30, max_size=60), st.integers(0, 5))
    def test_time_never_runs_backwards_across_splits(self, times: list[int], seed: int) -> None:
        some = numbered(len(times))
        moments = dict(zip((text for text, _ in some), times, strict=True))
        try:
            splits = split_table(table(some, [float(t) for t in times]), data(time="t"), seed)
        except DataError:
            assume(False)
            raise
        when = {name: [moments[text] for text in texts_of(splits, name)] for name in ("train", "dev", "test")}
        assert max(when["train"]) < min(when["dev"])
        assert max(when["dev"]) < min(when["test"])

    @given(st.text(max_size=30))
    def test_a_key_is_its_own_key(self, text: str) -> None:
        key = duplicate_key(text)
        assert duplicate_key(key) == key
        assert bool(key) == bool(text.strip())


class TestSameText:
    @pytest.mark.parametrize(
        ("one", "other"),
        [
            ("Great movie", "  great\tMOVIE\n"),
            ("great movie", '"Great movie."'),
            ("café", "cafe\u0301"),
            ("Straße", "STRASSE"),
            ("ＡＢＣ１２３", "abc123"),
            ("这部电影很好", "“这部电影很好。”"),
            ("good", "go\u200bod\ufeff"),
            ("❤️ it", "❤ it"),
        ],
    )
    def test_what_a_copy_changes_is_ignored(self, one: str, other: str) -> None:
        assert duplicate_key(one) == duplicate_key(other)

    @pytest.mark.parametrize(
        ("one", "other"),
        [
            ("great :)", "great :("),
            ("!!!", "???"),
            ("😀", "😡"),
            ("很好", "很坏"),
            ("好評", "好评"),
            ("a b", "ab"),
            ("not good", "good"),
            ("-5%", "+5%"),
        ],
    )
    def test_what_changes_the_meaning_is_not(self, one: str, other: str) -> None:
        assert duplicate_key(one) != duplicate_key(other)


class TestDuplicates:
    def test_repetitions_are_counted(self) -> None:
        splits = split_table(table([*numbered(40), ("Text NUMBER 1.", "b"), ("text number 1", "b")]), data(), 0)
        assert splits.report["duplicates_removed"] == 2
        assert sum(splits.report["rows"].values()) == 40

    def test_the_majority_keeps_its_label_and_a_tie_goes(self) -> None:
        more = [("disputed", "a"), ("Disputed", "a"), ("disputed!", "b"), ("tied", "a"), ("tied", "b")]
        splits = split_table(table(numbered(40) + more), data(), 0)
        kept = rows_of(splits, "train") + rows_of(splits, "dev") + rows_of(splits, "test")
        assert [label for text, label in kept if duplicate_key(text) == "disputed"] == ["a"]
        assert not [text for text, _ in kept if text == "tied"]
        assert splits.report["conflicting_texts"] == 2
        assert splits.report["conflicting_rows"] == 3
        assert splits.report["duplicates_removed"] == 1

    def test_a_given_test_set_stays_whole_and_its_texts_leave_train(self) -> None:
        test = [("text number 0", "a"), ("text number 0", "a"), ("Text number 2", "a"), ("new", "b")]
        some = numbered(40)
        splits = split_table(table(some + test, given=[None] * 40 + ["test"] * 4), data(), 0)
        assert rows_of(splits, "test") == test
        assert {"text number 0", "text number 2"}.isdisjoint(texts_of(splits, "train") | texts_of(splits, "dev"))
        assert splits.report["duplicates_across_splits"] == 2
        assert splits.report["kind"] == {"train": "stratified", "dev": "stratified", "test": "given"}

    def test_given_dev_loses_what_is_in_given_test(self) -> None:
        some = [*numbered(10), ("d", "a"), ("t", "b"), ("T", "b")]
        splits = split_table(table(some, given=["train"] * 10 + ["dev", "dev", "test"]), data(), 0)
        assert texts_of(splits, "dev") == {"d"}
        assert texts_of(splits, "test") == {"T"}
        assert len(splits.train.texts) == 10


class TestCut:
    def test_another_seed_gives_another_cut(self) -> None:
        cuts = {tuple(sorted(split_table(table(numbered(100)), data(), seed).test.texts)) for seed in range(5)}
        assert len(cuts) == 5

    def test_labels_are_in_the_order_of_classes(self) -> None:
        classes = {"z": [None, 0.0], "a": [0.0, None]}
        splits = split_table(table(numbered(40, "az")), data(classes={k: tuple(v) for k, v in classes.items()}), 0)
        assert splits.labels == ["z", "a"]

    def test_labels_that_are_integers_are_in_their_order(self) -> None:
        some = [(f"text {i}", str(i % 3 * 5 + 5)) for i in range(40)]
        assert split_table(table(some), data(), 0).labels == ["5", "10", "15"]

    def test_rows_of_one_time_stay_together(self) -> None:
        times = [float(i // 10) for i in range(100)]
        splits = split_table(table(numbered(100), times), data(time="t", split={"dev": 0.12, "test": 0.17}), 0)
        assert splits.report["rows"] == {"train": 70, "dev": 10, "test": 20}
        assert splits.report["kind"]["test"] == "chronological"

    def test_a_sample_has_so_many_rows_and_each_label_its_share(self) -> None:
        splits = split_table(table(numbered(400, "aaab")), data(max_rows=40), 0)
        assert sum(splits.report["rows"].values()) == 40
        assert sum(counts["a"] for counts in splits.report["labels"].values()) == 30
        assert splits.report["rows_not_sampled"] == 360


class TestRefused:
    def problem(self, some: Table, **fields: Any) -> str:
        with pytest.raises(DataError) as caught:
            split_table(some, data(**fields), 0)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    def test_a_label_with_too_few_rows(self) -> None:
        said = self.problem(table([*numbered(40), ("rare", "c"), ("Rare!", "c"), ("rarer", "c")]))
        assert "of the label 'c' (2); each needs at least 3, one for each of train, dev, test" in said

    def test_a_class_that_no_row_falls_in(self) -> None:
        classes = {"a": (None, 0.0), "b": (0.0, 1.0), "empty": (1.0, None)}
        assert "'empty' (0)" in self.problem(table(numbered(40)), classes=classes)

    def test_a_label_in_test_that_train_never_had(self) -> None:
        some = table([*numbered(40), ("new", "surprise"), ("newer", "surprise")], given=[None] * 40 + ["test"] * 2)
        assert "test has labels that train never had: 'surprise' (2 rows)" in self.problem(some)

    def test_a_label_that_only_came_up_lately(self) -> None:
        some = table(numbered(40) + [(f"late {i}", "c") for i in range(5)], [float(i) for i in range(45)])
        assert "test has labels that train never had: 'c'" in self.problem(some, time="t")

    def test_one_time_for_all(self) -> None:
        assert "has 1 different times" in self.problem(table(numbered(40), [1.0] * 40), time="t")

    def test_one_label_left(self) -> None:
        some = [*((f"text {i}", "a") for i in range(20)), ("text 1", "b")]
        assert "the one label 'a'" in self.problem(table(some))
