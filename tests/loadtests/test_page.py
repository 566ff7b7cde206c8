"""The pages of load tests: whole, self-contained, and saying what the figures say."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from loadtests.page import write_page
from slipway.recipe import LoadTest
from slipway.report.loadtest import capacity_page, comparison_page, verdict_page
from slipway.timeline import FaultRecord
from tests.loadtests.made_artifacts import capacity, comparison, verdict_of
from tests.loadtests.synthetic import Happening, Queue

pytestmark = pytest.mark.unit

_VOID = {"meta", "br", "link", "path", "use", "rect", "line", "circle"}


class Page(HTMLParser):
    """Text, titles of figures, and whether elements are closed in order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.html = html
        self.open: list[str] = []
        self.labels: list[str] = []
        self.ids: list[str] = []
        self.texts: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        if tag not in _VOID:
            self.open.append(tag)
        if tag == "svg":
            assert found.get("role") == "img"
            self.labels.append(found.get("aria-label") or "")
        if found.get("id"):
            self.ids.append(str(found["id"]))

    def handle_endtag(self, tag: str) -> None:
        if tag not in _VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


def require_self_contained(html: str) -> Page:
    page = Page(html)
    assert page.open == []
    assert len(page.ids) == len(set(page.ids))
    assert not re.search(r"<(script|link|img|iframe)\b", html)
    assert not re.search(r"(src|href)=\"(?!#)", html)
    assert "url(http" not in html
    assert "@import" not in html
    assert all(page.labels)
    return page


@pytest.fixture(scope="module")
def eventful(tmp_path_factory: pytest.TempPathFactory) -> Page:
    """A run with a stall, errors and a fault."""
    load = LoadTest.model_validate(
        {
            "rate": 150.0,
            "duration_s": 40.0,
            "warmup_s": 3.0,
            "slo": {"p50_ms": 20.0, "p99_ms": 60.0, "error_rate": 0.001},
        }
    )
    happenings = (Happening(12, 1.2, "stall"), Happening(25, 1.5, "error", 0.6), Happening(30, 4, "timeout", 0.03))
    table = Queue(happenings=happenings).simulate(150, 40, warmup_s=3)
    fault = FaultRecord(
        fault="kill-stub", detail="SIGKILL to stub 4711", began_s=25, ended_s=25, recovered_s=26.6, recover_within_s=5,
        requests=240, lost=131, wrong=0,
    )  # fmt: skip
    verdict, timeline = verdict_of(table, load, tmp_path_factory.mktemp("page"), [fault])
    return require_self_contained(verdict_page("reviews <b>", verdict, timeline))


def test_a_run_shows_every_question_in_a_figure_of_its_own(eventful: Page) -> None:
    told = " / ".join(eventful.labels)
    for question in (
        "over the time",
        "by percentile",
        "Distribution",
        "Requests a second",
        "Failed requests",
        "queue",
        "cores",
    ):
        assert question in told


def test_a_run_says_its_objective_its_faults_and_its_conditions(eventful: Page) -> None:
    for said in (
        "Objective missed at 150 requests/s",
        "p99",
        "60 ms",
        "SIGKILL to stub 4711",
        "131",
        "layout",
        "seed 0",
    ):
        assert said in eventful.text
    assert "burst of failures" in eventful.text
    assert "made error" in eventful.text


def test_names_from_outside_are_text_and_not_markup(eventful: Page) -> None:
    assert "reviews <b>" in eventful.text
    assert "reviews <b>" not in eventful.html


def test_a_run_without_anything_special_leaves_out_what_there_is_not(tmp_path: Path) -> None:
    load = LoadTest(rate=30.0, duration_s=5.0, warmup_s=0.0)
    verdict, timeline = verdict_of(Queue().simulate(30, 5), load, tmp_path / "scratch", server=False)
    page = require_self_contained(verdict_page("reviews", verdict, timeline))
    assert "Faults" not in page.text
    assert len(page.labels) == 4


def test_a_run_whose_server_answered_nothing_is_drawn_too(tmp_path: Path) -> None:
    load = LoadTest(rate=30.0, duration_s=5.0, warmup_s=0.0)
    table = Queue(happenings=(Happening(0, 10, "error"),)).simulate(30, 5)
    verdict, timeline = verdict_of(table, load, tmp_path / "scratch")
    page = require_self_contained(verdict_page("reviews", verdict, timeline))
    assert "Objective missed" in page.text


def test_an_invalid_run_is_marked_as_judging_nothing(tmp_path: Path) -> None:
    load = LoadTest.model_validate(
        {"rate": 30.0, "duration_s": 5.0, "warmup_s": 0.0, "max_dispatch_lag_ms": 1e-4, "slo": {"p99_ms": 50.0}}
    )
    verdict, timeline = verdict_of(Queue().simulate(30, 5), load, tmp_path / "scratch")
    page = require_self_contained(verdict_page("reviews", verdict, timeline))
    assert "say nothing about the server" in page.text
    assert "not judged" in page.text


def test_a_capacity_shows_its_interval_its_bottleneck_and_every_probe() -> None:
    page = require_self_contained(capacity_page("reviews", capacity()))
    for said in ("Capacity 235 requests/s", "226 – 243", "Bottleneck: compute", "no core was idle", "90%"):
        assert said in page.text
    assert page.html.count('<tr><td class="n">') == 14
    assert any("against the offered rate" in label for label in page.labels)


def test_a_comparison_shows_ratios_with_intervals() -> None:
    page = require_self_contained(comparison_page("reviews", comparison()))
    for said in ("A (dense)", "B (int8)", "0.760", "0.700 – 0.830", "1.31 times faster"):
        assert said in page.text
    assert len(page.labels) == 2


def test_without_the_libraries_the_artifact_goes_without_a_page(tmp_path: Path) -> None:
    def draw() -> str:
        raise ModuleNotFoundError("No module named 'matplotlib'", name="matplotlib")

    write_page(tmp_path, draw)
    assert list(tmp_path.iterdir()) == []


def test_another_missing_module_is_a_bug_and_not_passed_over(tmp_path: Path) -> None:
    def draw() -> str:
        raise ModuleNotFoundError("No module named 'numpi'", name="numpi")

    with pytest.raises(ModuleNotFoundError):
        write_page(tmp_path, draw)
