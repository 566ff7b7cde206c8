"""What is said to be the limit, by the figures of the probes around it."""

import pytest

from loadtests.bottleneck import bottleneck_of
from slipway.capacity import Answer, Probe
from slipway.timeline import Usage, Work
from slipway.verdict import Latency

pytestmark = pytest.mark.unit


def probe(
    rate: float,
    answer: Answer,
    *,
    mean_ms: float = 10.0,
    cores: tuple[float, float] | None = None,
    work: tuple[float, float] | None = None,
) -> Probe:
    latency = Latency(
        requests=100, p50=mean_ms, p90=mean_ms, p95=mean_ms, p99=mean_ms, p999=mean_ms, max=mean_ms, mean=mean_ms
    )
    return Probe(
        number=0,
        rate=rate,
        answer=answer,
        reason="because",
        seed=0,
        duration_s=10,
        requests=100,
        achieved_rate=rate,
        latency=latency,
        error_rate=0,
        dispatch_lag_p99_ms=1,
        backlog_s_per_s=0,
        in_flight=1,
        usage=Usage(cpu_cores=cores[0], generator_cores=cores[1], cores=2, rss_mb=100) if cores else None,
        work=Work(requests=100, executions=100, queue_ms=work[0], compute_ms=work[1]) if work else None,
    )


def test_no_idle_core_is_compute() -> None:
    probes = [probe(100, "met", cores=(1.0, 0.2)), probe(200, "missed", cores=(1.6, 0.3), work=(80, 9))]
    found = bottleneck_of(probes, 8, limited_by_client=False)
    assert found.what == "compute"
    assert "server 1.60, generator 0.30 of 2" in found.reason
    assert "waited 80.0 ms" in found.reason


def test_waiting_while_cores_are_idle_is_the_queue() -> None:
    probes = [probe(100, "met", work=(1, 8)), probe(200, "missed", cores=(0.9, 0.2), work=(80, 9))]
    found = bottleneck_of(probes, 8, limited_by_client=False)
    assert found.what == "queue"
    assert "more instances" in found.reason


def test_waiting_while_cores_are_idle_is_seen_without_statistics_too() -> None:
    found = bottleneck_of([probe(200, "missed", mean_ms=90, cores=(0.9, 0.2))], 8, limited_by_client=False)
    assert found.what == "queue"


def test_a_model_that_is_itself_too_slow_is_compute() -> None:
    found = bottleneck_of([probe(20, "missed", cores=(0.5, 0.1), work=(1, 60))], 60, limited_by_client=False)
    assert found.what == "compute"


def test_instances_in_each_others_way_are_compute() -> None:
    probes = [probe(50, "met", work=(0.1, 5)), probe(200, "missed", cores=(1.0, 0.2), work=(30, 12))]
    found = bottleneck_of(probes, 5, limited_by_client=False)
    assert found.what == "compute"
    assert "in each other's way" in found.reason


def test_a_client_that_was_late_is_named_with_who_had_the_cores() -> None:
    found = bottleneck_of([probe(100, "met"), probe(200, "invalid", cores=(1.2, 0.8))], 8, limited_by_client=True)
    assert found.what == "client"
    assert "because" in found.reason
    assert "share the machine" in found.reason


def test_strangers_that_had_the_cores_are_told() -> None:
    usage = Usage(cpu_cores=0.3, generator_cores=0.3, machine_cores=1.9, cores=2, rss_mb=100)
    late = probe(200, "invalid").model_copy(update={"usage": usage})
    found = bottleneck_of([probe(100, "met"), late], 8, limited_by_client=True)
    assert "others 1.30 of 2" in found.reason


def test_where_nothing_was_answered_busy_cores_are_nobodys_limit() -> None:
    silent = probe(200, "missed", cores=(0.1, 1.8), work=(0, 0)).model_copy(update={"achieved_rate": 0.0})
    found = bottleneck_of([probe(100, "met"), silent], 8, limited_by_client=False)
    assert found.what == "unknown"
    assert "not one request was answered rightly: because" in found.reason


def test_from_outside_alone_nobody_knows() -> None:
    found = bottleneck_of([probe(100, "met"), probe(200, "missed", mean_ms=90)], 8, limited_by_client=False)
    assert found.what == "unknown"
    assert "--metrics" in found.reason
