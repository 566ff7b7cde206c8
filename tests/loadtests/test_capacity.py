"""The capacity and the comparison, with Locust and real sockets, on endpoints whose capacity is known."""

from pathlib import Path

import pytest

import loadtests
from loadtests import idle
from loadtests.capacity import judge_probe
from slipway.artifacts import read_artifact
from slipway.bundle import Bundle
from slipway.capacity import CAPACITY, Capacity
from slipway.comparison import COMPARISON, Comparison
from slipway.errors import LoadTestError
from slipway.recipe import LoadTest
from slipway.timeline import TIMELINE, Timeline
from slipway.verdict import VERDICT, Verdict
from tests.loadtests.conftest import WriteTexts
from tests.loadtests.fake_endpoint import fake_endpoint
from tests.loadtests.made_artifacts import verdict_of
from tests.loadtests.synthetic import Queue

ANY_LAG = 1e9


@pytest.mark.unit
def test_a_probe_whose_waiting_grows_is_missed_whatever_the_objective_allows(tmp_path: Path) -> None:
    load = LoadTest.model_validate({"rate": 220.0, "duration_s": 20.0, "warmup_s": 0.0, "slo": {"p99_ms": 60_000.0}})
    verdict, timeline = verdict_of(Queue(service_ms=10).simulate(220, 20), load, tmp_path / "over")
    assert verdict.outcome == "met"
    answer, why = judge_probe(verdict, timeline)
    assert answer == "missed"
    assert "grew throughout" in why
    verdict, timeline = verdict_of(Queue(service_ms=10).simulate(100, 20), load, tmp_path / "under")
    assert judge_probe(verdict, timeline)[0] == "met"


@pytest.mark.integration
@pytest.mark.slow
def test_the_capacity_of_a_known_server_is_found(bundle: Bundle, tmp_path: Path, write_texts: WriteTexts) -> None:
    # 2 workers that take 25 ms each: 80 requests/s, and nothing that a busy test machine would change.
    load = LoadTest.model_validate(
        {
            "rate": 50.0,
            "protocols": ["http"],
            "max_dispatch_lag_ms": ANY_LAG,
            "slo": {"p50_ms": 300.0},
            "capacity": {
                "probe_s": 2.0,
                "warmup_s": 0.5,
                "min_requests": 20,
                "precision": 0.5,
                "time_budget_s": 60.0,
                "at_least": 10.0,
            },
        }
    )
    texts = write_texts([f"text {number}" for number in range(20)])
    with fake_endpoint(delay_ms=25, workers=2) as address:
        artifact = loadtests.find_capacity(bundle, address, load, tmp_path / "capacity", texts=texts)
    found = Capacity.model_validate(artifact.json(CAPACITY))
    assert found.outcome == "found", found.reason
    assert found.interval is not None
    assert found.interval.high is not None
    # A machine that is busy elsewhere makes it less; nothing makes it more than some that fit into the limit's slack.
    assert found.interval.low <= 100
    assert found.interval.high >= 40
    assert found.unloaded_ms >= 25
    assert found.service_from == "unloaded"
    assert found.memory_mb is not None
    assert found.memory_mb > 10
    assert found.met
    assert read_artifact(artifact.path, "capacity").digest == artifact.digest
    for probe in found.probes:
        verdict = Verdict.model_validate_json((artifact.path / "probes" / f"{probe.number:03}" / VERDICT).read_text())
        assert verdict.offered_rate == probe.rate
    assert "Bottleneck" in (artifact.path / "report.html").read_text()


@pytest.mark.integration
def test_a_budget_for_no_probe_at_all_is_said_and_judges_nothing(
    bundle: Bundle, tmp_path: Path, write_texts: WriteTexts
) -> None:
    load = LoadTest.model_validate({"capacity": {"time_budget_s": 1.0}, "protocols": ["http"]})
    with fake_endpoint() as address:
        artifact = loadtests.find_capacity(bundle, address, load, tmp_path / "capacity", texts=write_texts(["fine"]))
    outcome = loadtests.outcome_of(artifact)
    assert outcome.exit_code == 3
    assert "time_budget_s" in outcome.reason


@pytest.mark.integration
@pytest.mark.parametrize("budget_s", [60.0, 13.0], ids=["between probes", "in the last probe"])
def test_an_endpoint_that_dies_in_the_search_has_no_capacity_and_no_bottleneck(
    bundle: Bundle, tmp_path: Path, write_texts: WriteTexts, monkeypatch: pytest.MonkeyPatch, budget_s: float
) -> None:
    monkeypatch.setattr(idle, "_DRAIN_S", 1.0)
    wanted = {"probe_s": 2.0, "warmup_s": 0.5, "min_requests": 200, "time_budget_s": budget_s}
    load = LoadTest.model_validate(
        {"rate": 50.0, "protocols": ["http"], "max_dispatch_lag_ms": ANY_LAG, "capacity": wanted}
    )
    # More texts than are asked one at a time before.
    texts = write_texts([*(f"text {number}" for number in range(60)), "!die"])
    with (
        fake_endpoint() as address,
        pytest.raises(LoadTestError, match=r"does not answer any more.* The last load was 50 requests/s.*No capacity"),
    ):
        loadtests.find_capacity(bundle, address, load, tmp_path / "capacity", texts=texts)
    assert not (tmp_path / "capacity").exists()


@pytest.mark.integration
@pytest.mark.slow
def test_the_slower_of_two_is_told_by_a_ratio_that_leaves_out_1(
    bundle: Bundle, tmp_path: Path, write_texts: WriteTexts
) -> None:
    load = LoadTest.model_validate(
        {
            "rate": 50.0,
            "protocols": ["http"],
            "max_dispatch_lag_ms": ANY_LAG,
            "compare": {"pairs": 4, "block_s": 0.8, "warmup_s": 0.2, "max_p99_ratio": 1.05},
        }
    )
    texts = write_texts([f"text {number}" for number in range(20)])
    with fake_endpoint(delay_ms=5) as fast, fake_endpoint(delay_ms=60) as slow:
        sides = [loadtests.Contender(name, bundle, address) for name, address in (("A", fast), ("B", slow))]
        artifact = loadtests.compare(*sides, load, tmp_path / "comparison", texts=texts)
    found = Comparison.model_validate(artifact.json(COMPARISON))
    ratio = next(ratio for ratio in found.ratios if ratio.figure == "p50")
    assert ratio.low > 1
    assert [block.side for block in found.blocks] == list("abbaabba")
    assert found.pairs == 4
    assert found.a.latency.p50 < found.b.latency.p50
    scheduled = [block.latency.requests for block in found.blocks]
    assert scheduled[0] == scheduled[1]
    assert scheduled[2] == scheduled[3]
    assert (artifact.path / "report.html").is_file()


@pytest.mark.integration
def test_a_run_has_its_timeline_and_its_page(bundle: Bundle, tmp_path: Path, write_texts: WriteTexts) -> None:
    load = LoadTest.model_validate({"rate": 40.0, "duration_s": 3.0, "warmup_s": 0.5, "max_dispatch_lag_ms": ANY_LAG})
    with fake_endpoint() as address:
        texts = write_texts([f"text {number}" for number in range(20)])
        artifact = loadtests.run(bundle, address, load, tmp_path / "verdict", texts=texts)
    verdict = Verdict.model_validate(artifact.json(VERDICT))
    timeline = Timeline.model_validate(artifact.json(TIMELINE))
    assert sum(window.scheduled for window in timeline.windows) == verdict.scheduled
    assert timeline.usage is not None
    assert timeline.usage.rss_mb > 10
    page = (artifact.path / "report.html").read_text(encoding="utf-8")
    assert "Objective met at 40 requests/s" in page
    assert read_artifact(artifact.path, "verdict").digest == artifact.digest


@pytest.mark.integration
def test_a_metrics_page_that_says_nothing_is_refused_before_the_load(bundle: Bundle, tmp_path: Path) -> None:
    with fake_endpoint() as address, pytest.raises(LoadTestError, match="can't be read"):
        loadtests.run(bundle, address, LoadTest(), tmp_path / "verdict", metrics_url=f"http://{address}/metrics")
    assert list(tmp_path.iterdir()) == []
