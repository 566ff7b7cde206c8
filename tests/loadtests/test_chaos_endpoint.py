"""Faults in a real endpoint under load: Triton, its stubs and Envoy, found by their port and their mark."""

import pytest

import loadtests
import serving
from slipway.artifacts import Artifact
from slipway.bundle import Bundle
from slipway.recipe import LoadTest, Serve
from slipway.timeline import TIMELINE, Timeline
from slipway.verdict import VERDICT, Verdict

pytestmark = [pytest.mark.integration, pytest.mark.slow]


@pytest.fixture(scope="module")
def artifact(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """A run in which a stub is killed and Triton is paused, on an endpoint with two instances."""
    folder = tmp_path_factory.mktemp("chaos")
    section = Serve(port=0, instances=2)
    repository = serving.write_repository(bundle, folder / "repository", section)
    # Limits are wide: whether the service comes back is the question, not how fast this machine is.
    load = LoadTest.model_validate(
        {
            "rate": 40.0,
            "duration_s": 20.0,
            "warmup_s": 1.0,
            "max_dispatch_lag_ms": 1e9,
            "slo": {"p99_ms": 9000.0, "error_rate": 0.9},
            "chaos": [
                {"at_s": 3.0, "fault": "kill-stub", "recover_within_s": 15.0},
                {"at_s": 12.0, "fault": "pause-triton", "for_s": 1.0},
            ],
        }
    )
    with serving.start(repository.path, section) as endpoint:
        return loadtests.run(bundle, endpoint.address, load, folder / "verdict", endpoint=endpoint.describe())


@pytest.fixture(scope="module")
def timeline(artifact: Artifact) -> Timeline:
    return Timeline.model_validate(artifact.json(TIMELINE))


def test_each_fault_has_its_record_and_the_service_comes_back(timeline: Timeline) -> None:
    killed, paused = timeline.faults
    assert killed.fault == "kill-stub"
    assert "SIGKILL to stub" in killed.detail
    assert killed.began_s == pytest.approx(3, abs=1.5)
    assert killed.recovered_s is not None
    assert killed.met
    assert paused.ended_s - paused.began_s >= 1
    assert paused.recovered_s is not None


def test_nothing_is_wrong_and_nothing_is_lost_but_in_a_fault(artifact: Artifact, timeline: Timeline) -> None:
    assert timeline.wrong == 0
    assert timeline.lost_outside_faults == 0
    verdict = Verdict.model_validate(artifact.json(VERDICT))
    assert sum(verdict.failures.values()) == sum(fault.lost for fault in timeline.faults)


def test_tritons_statistics_and_the_servers_processes_are_found_without_being_told(timeline: Timeline) -> None:
    assert timeline.work is not None
    assert timeline.work.requests > 0
    assert timeline.work.compute_ms > 0
    assert timeline.usage is not None
    # Triton, Envoy, supervisor and two stubs: no single Python process is that large.
    assert timeline.usage.rss_mb > 100


def test_the_page_shows_the_faults(artifact: Artifact) -> None:
    page = (artifact.path / "report.html").read_text(encoding="utf-8")
    for said in ("Faults", "kill-stub", "pause-triton", "SIGKILL to stub"):
        assert said in page
