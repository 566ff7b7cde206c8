"""What is captured is masked, bounded, whole lines, and never in the way; and Slipway can learn from it."""

import importlib.util
import json
import os
import signal
import stat
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import serving
from serving.model.observation import Answered, Executed, Request
from serving.privacy import presidio
from serving.privacy.capture import LONGEST_TEXT, Capture, Outcome
from serving.privacy.files import CaptureFiles
from serving.privacy.masking import PATTERNS, Found, Masker
from slipway.errors import ServingError
from slipway.recipe import Capture as Section
from slipway.recipe import Data, Observe, Serve, load_recipe
from tests.serving.conftest import eventually

pytestmark = [pytest.mark.unit]

with_presidio = pytest.mark.skipif(
    importlib.util.find_spec("presidio_analyzer") is None, reason="needs the extra 'privacy'"
)


def batch(*texts: str, label: str = "positive", arrived_s: float = 0.5) -> Executed:
    count = len(texts)
    request = Request(arrived_s=arrived_s)
    answered = Answered(request, texts, [label] * count, [0.75] * count, [False] * count, [1] * count)
    return Executed(1.0, 2.0, 3.0, 1_700_000_000.5, 10, 0, 1, [answered], [])


class Counting:
    """What became of the rows."""

    def __init__(self) -> None:
        self.rows: Counter[str] = Counter()

    def __call__(self, outcome: Outcome, rows: int) -> None:
        self.rows[outcome] += rows


@pytest.fixture
def counting() -> Counting:
    return Counting()


def captured(directory: Path) -> list[dict[str, object]]:
    lines = [
        line for file in sorted(directory.glob("*.jsonl")) for line in file.read_text(encoding="utf-8").splitlines()
    ]
    return [json.loads(line) for line in lines]


def capture(
    directory: Path,
    counting: Counting,
    *,
    rate: float = 1.0,
    masker: Masker | None = None,
    max_bytes: int = 10**6,
    sample: Callable[[], float] = lambda: 0.0,
) -> Capture:
    files = CaptureFiles(directory, max_bytes=max_bytes, max_file_bytes=max_bytes // 4)
    return Capture(
        files, masker or Masker((PATTERNS,)), rate=rate, model="tiny", version="3", count=counting, sample=sample
    )


def test_health_checks_are_not_captured(tmp_path: Path, counting: Counting) -> None:
    running = capture(tmp_path, counting)
    running.executed(batch("the front door's own text", arrived_s=0.0))
    running.executed(batch("a caller's text"))
    running.close()
    assert [row["text"] for row in captured(tmp_path)] == ["a caller's text"]
    assert counting.rows == {"written": 1}


def test_a_row_is_masked_and_says_what_was_answered_by_what_and_when(tmp_path: Path, counting: Counting) -> None:
    observer = capture(tmp_path / "new", counting)
    observer.executed(batch("我的手机是13800138000，很好用"))
    observer.close()
    assert captured(tmp_path / "new") == [
        {
            "text": "我的手机是<PHONE>，很好用",
            "label": "positive",
            "score": 0.75,
            "truncated": False,
            "model": "tiny",
            "version": "3",
            "time": "2023-11-14T22:13:20.500+00:00",
        }
    ]
    assert counting.rows == {"written": 1}


def test_only_the_owner_can_read_it(tmp_path: Path, counting: Counting) -> None:
    observer = capture(tmp_path / "new", counting)
    observer.executed(batch("good"))
    observer.close()
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o700
    [file] = (tmp_path / "new").glob("*.jsonl")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_share_of_the_requests_is_captured_each_with_all_its_rows(tmp_path: Path, counting: Counting) -> None:
    draws = iter([0.1, 0.9, 0.29, 0.3])
    observer = capture(tmp_path, counting, rate=0.3, sample=lambda: next(draws))
    for number in range(4):
        observer.executed(batch(f"first {number}", f"second {number}"))
    observer.close()
    assert [row["text"] for row in captured(tmp_path)] == ["first 0", "second 0", "first 2", "second 2"]


def test_what_the_writer_cannot_keep_up_with_is_dropped_and_counted_and_nobody_waits(
    tmp_path: Path, counting: Counting
) -> None:
    release = threading.Event()

    class Slow:
        def find(self, text: str) -> Iterator[Found]:
            release.wait(30)
            return iter(())

    observer = capture(tmp_path, counting, masker=Masker((Slow(),)))
    for _ in range(1000):
        observer.executed(batch("good"))
    # It came here although the writer stands still.
    assert counting.rows["queue"] >= 600
    release.set()
    observer.close()
    assert counting.rows["queue"] + counting.rows["written"] == 1000
    assert len(captured(tmp_path)) == counting.rows["written"]


def test_what_cannot_be_masked_is_not_written(tmp_path: Path, counting: Counting) -> None:
    class Broken:
        def find(self, text: str) -> Iterator[Found]:
            raise RuntimeError(text)

    observer = capture(tmp_path, counting, masker=Masker((Broken(),)))
    observer.executed(batch("13800138000"))
    observer.close()
    assert captured(tmp_path) == []
    assert counting.rows == {"masking": 1}


def test_a_text_too_long_to_be_masked_in_good_time_is_dropped_whole(tmp_path: Path, counting: Counting) -> None:
    observer = capture(tmp_path, counting)
    observer.executed(batch("x" * (LONGEST_TEXT + 1)))
    observer.close()
    assert counting.rows == {"length": 1}
    assert captured(tmp_path) == []


@given(sizes=st.lists(st.integers(1, 400), max_size=60), writers=st.integers(1, 3))
@settings(deadline=None, max_examples=40)
def test_all_files_together_never_take_more_than_they_may(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], writers: int
) -> None:
    directory = tmp_path_factory.mktemp("capture")
    open_files = [CaptureFiles(directory, max_bytes=2000, max_file_bytes=300) for _ in range(writers)]
    for number, size in enumerate(sizes):
        line = b"x" * (size - 1) + b"\n"
        written = open_files[number % writers].append([line])
        assert written == (1 if size <= 300 else 0)
        assert sum(file.stat().st_size for file in directory.iterdir()) <= 2000
    for files in open_files:
        files.close()


def test_the_oldest_make_room_and_the_newest_stay(tmp_path: Path) -> None:
    files = CaptureFiles(tmp_path, max_bytes=1000, max_file_bytes=200)
    for number in range(100):
        files.append([b"%098d\n" % number])
    files.close()
    kept = [int(line) for file in tmp_path.glob("*.jsonl") for line in file.read_text(encoding="utf-8").splitlines()]
    assert max(kept) == 99
    assert sorted(kept) == list(range(min(kept), 100))
    assert 8 <= len(kept) <= 10


def test_files_of_others_in_the_directory_are_left_alone(tmp_path: Path) -> None:
    mine = tmp_path / "labelled.jsonl"
    mine.write_bytes(b"x" * 5000)
    files = CaptureFiles(tmp_path, max_bytes=1000, max_file_bytes=200)
    for _ in range(50):
        files.append([b"y" * 99 + b"\n"])
    files.close()
    assert mine.stat().st_size == 5000


def test_a_full_disk_drops_and_leaves_whole_lines(
    tmp_path: Path, counting: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    writing = os.write
    room = 250

    def write(descriptor: int, data: bytes) -> int:
        nonlocal room
        if room == 0:
            raise OSError(28, "No space left on device")
        part = data[:room]
        room -= len(part)
        return writing(descriptor, part)

    monkeypatch.setattr("serving.privacy.files.os.write", write)
    observer = capture(tmp_path, counting)
    for _ in range(5):
        observer.executed(batch("good"))
    observer.close()
    assert counting.rows["written"] >= 1
    assert counting.rows["disk"] == 5 - counting.rows["written"]
    assert len(captured(tmp_path)) == counting.rows["written"]


def test_a_killed_process_leaves_whole_lines_but_for_the_last_which_the_next_cuts_off(tmp_path: Path) -> None:
    code = """
import sys, time
from pathlib import Path
from serving.privacy.files import CaptureFiles
files = CaptureFiles(Path(sys.argv[1]), max_bytes=10**7, max_file_bytes=10**6)
while True:
    files.append([b'{"text": "' + b'x' * 20000 + b'"}\\n'])
"""
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)])
    try:
        assert eventually(lambda: sum(file.stat().st_size for file in tmp_path.glob("*.jsonl")) > 10**6)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    with next(iter(tmp_path.glob("*.jsonl"))).open("ab") as stream:
        stream.write(b'{"text": "torn')
    CaptureFiles(tmp_path, max_bytes=10**7, max_file_bytes=10**6).close()
    assert len(captured(tmp_path)) > 10


def test_captured_files_are_a_table_that_slipway_trains_on(tmp_path: Path, counting: Counting) -> None:
    tables = pytest.importorskip("training.tables")
    observer = capture(tmp_path / "captured", counting)
    for label in ("positive", "negative"):
        observer.executed(batch(*(f"{label} {number} 邮箱a{number}@b.com" for number in range(20)), label=label))
    observer.close()
    table = tables.read_table(Data(source=f"file:{tmp_path}/captured/requests-*.jsonl", time="time"))
    assert len(table.texts) == 40
    assert set(table.labels) == {"positive", "negative"}
    assert table.times is not None
    assert not any("@" in text for text in table.texts)


@with_presidio
@pytest.mark.slow
def test_presidio_finds_what_our_patterns_do_not_know() -> None:
    masker = presidio.capture_masker()
    assert masker.mask("His NINO is AB 12 34 56 C.") == "His NINO is <ID>."
    assert masker.mask("钱包1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa请转账") == "钱包<WALLET>请转账"
    assert masker.mask("手机13800138000，a@b.com") == "手机<PHONE>，<EMAIL>"
    assert masker.mask("营收1,299.00元, 20230517 and 12.5%") == "营收1,299.00元, 20230517 and 12.5%"
    # Eleven of these digits would be a number of Poland's.
    assert masker.mask("订单号2023110513812345678已发货") == "订单号2023110513812345678已发货"


def test_capture_without_its_extra_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presidio.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ServingError, match=r"slipway\[privacy\]"):
        presidio.capture_masker()


def test_a_relative_directory_is_the_recipes_and_not_the_one_of_some_process(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        'name: tiny\nbase: {model: "file:base"}\ndata: {source: "file:data.csv"}\n'
        "serve: {observe: {capture: {rate: 0.5, directory: captured}}}\n",
        encoding="utf-8",
    )
    assert load_recipe(recipe).serve.observe.capture.directory == str(tmp_path / "captured")
    assert Section(directory="captured").directory == str(Path.cwd() / "captured")


def test_capture_is_off_unless_asked_for_and_wants_a_directory() -> None:
    assert Observe().capture.rate == 0
    with pytest.raises(ValueError, match="directory"):
        Section(rate=0.1)


@with_presidio
@pytest.mark.integration
@pytest.mark.slow
def test_an_endpoint_captures_what_it_is_asked_masked_and_flushed_when_it_ends(
    repository: Path, tmp_path: Path
) -> None:
    directory = tmp_path / "captured"
    observe = Observe(capture=Section(rate=1.0, directory=str(directory)))
    with (
        serving.start(repository, Serve(port=0, observe=observe)) as endpoint,
        serving.Client(endpoint.address, endpoint.model) as client,
    ):
        client.classify([f"好 good 13800138000 number {number}" for number in range(30)])
    rows = [row for row in captured(directory) if "number" in str(row["text"])]
    assert len(rows) == 30
    assert all(str(row["text"]).startswith("好 good <PHONE> number") for row in rows)
    assert {row["label"] for row in rows} == {"positive"}
    assert {(row["model"], row["version"]) for row in rows} == {("tiny", "1")}


def test_an_endpoint_without_the_extra_says_so_before_it_starts(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(presidio.importlib.util, "find_spec", lambda _: None)
    observe = Observe(capture=Section(rate=1.0, directory=str(tmp_path)))
    with pytest.raises(ServingError, match=r"slipway\[privacy\]"):
        serving.start(repository, Serve(port=0, observe=observe))
