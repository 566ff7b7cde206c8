"""What a fault did, read from the samples."""

from pathlib import Path

import pytest

from loadtests.chaos import Injected
from loadtests.recovery import records_of
from slipway.recipe import Slo
from slipway.timeline import FaultRecord
from tests.loadtests.synthetic import Happening, Queue, write

pytestmark = pytest.mark.unit

ZERO_S = 1000.0
SLO = Slo(p99_ms=100.0)


def record(queue: Queue, folder: Path, *faults: Injected, slo: Slo = SLO) -> list[FaultRecord]:
    samples = write(queue.simulate(100, 30), folder / "samples.parquet")
    return records_of(list(faults), samples, ZERO_S, slo)


def fault(at_s: float, for_s: float = 0.0, within_s: float | None = None) -> Injected:
    return Injected("kill-stub", "SIGKILL to stub 7", ZERO_S + at_s, ZERO_S + at_s + for_s, within_s)


def test_a_stall_is_over_when_its_queue_is(tmp_path: Path) -> None:
    (found,) = record(Queue(happenings=(Happening(10, 2, "stall"),)), tmp_path, fault(10, 2))
    # 200 requests wait when it ends and the server gains on them at 150/s.
    assert found.recovered_s is not None
    assert 11.8 < found.recovered_s < 14.5
    assert found.lost == 0
    assert found.requests > 200


def test_errors_in_the_window_are_lost_and_others_are_not_its_own(tmp_path: Path) -> None:
    queue = Queue(happenings=(Happening(10, 1.5, "error"), Happening(25, 0.5, "timeout")))
    (found,) = record(queue, tmp_path, fault(10))
    assert found.recovered_s == pytest.approx(11.5, abs=0.1)
    assert found.lost == pytest.approx(150, abs=45)
    assert found.wrong == 0


def test_wrong_answers_are_counted_apart_from_lost_ones(tmp_path: Path) -> None:
    (found,) = record(Queue(happenings=(Happening(10, 1, "wrong", 0.5),)), tmp_path, fault(10))
    assert found.lost == 0
    assert found.wrong == pytest.approx(50, abs=25)


def test_a_fault_that_nobody_notices_is_over_at_once(tmp_path: Path) -> None:
    (found,) = record(Queue(), tmp_path, fault(10, within_s=0.5))
    assert found.time_to_recovery_s == 0
    assert found.met


def test_a_service_that_never_comes_back_has_no_recovery_and_misses_its_limit(tmp_path: Path) -> None:
    (found,) = record(Queue(happenings=(Happening(10, 20, "error"),)), tmp_path, fault(10, within_s=15))
    assert found.recovered_s is None
    assert not found.met
    assert found.lost > 1500


def test_two_faults_have_a_record_each(tmp_path: Path) -> None:
    queue = Queue(happenings=(Happening(5, 1, "error"), Happening(20, 3, "error")))
    first, second = record(queue, tmp_path, fault(5), fault(20, within_s=2))
    assert first.recovered_s == pytest.approx(6, abs=0.1)
    assert second.recovered_s == pytest.approx(23, abs=0.1)
    assert first.met
    assert not second.met


def test_failures_that_come_a_second_apart_are_one_disturbance(tmp_path: Path) -> None:
    drops = tuple(Happening(10 + 1.1 * number, 0.03, "error") for number in range(4))
    (found,) = record(Queue(happenings=drops), tmp_path, fault(10))
    assert found.recovered_s is not None
    assert found.recovered_s > 12
    assert found.lost >= 4


def test_failures_as_frequent_as_before_the_fault_are_none_of_its(tmp_path: Path) -> None:
    (found,) = record(Queue(happenings=(Happening(0, 30, "error", 0.05),)), tmp_path, fault(12))
    assert found.recovered_s is not None
    assert found.recovered_s < 14


def test_without_an_objective_normal_is_what_was_before(tmp_path: Path) -> None:
    (found,) = record(Queue(happenings=(Happening(10, 1, "stall"),)), tmp_path, fault(10, 1), slo=Slo())
    assert found.recovered_s is not None
    assert 10.9 < found.recovered_s < 13
