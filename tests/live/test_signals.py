"""What autoscalers, rules and the dashboard see of a real endpoint under load, beside what the load tester measured.

The endpoint holds requests back for 300 ms so that some are always in flight, without a busy machine; the load tester
knows how many from its samples by Little's law: the time that all requests took together, over the time of the run.
"""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from prometheus_client.parser import text_string_to_metric_families

import loadtests
import serving
from deployment.dashboard.__main__ import FILE
from loadtests.samples import STARTED, read_samples
from slipway.bundle import Bundle
from slipway.recipe import Limits, LoadTest, Serve
from slipway.timeline import Timeline
from slipway.verdict import Verdict
from tests.helm.rules import NAMESPACE, POD, render
from tests.helm.signals import adapter_query, keda_query
from tests.live.prometheus import Prometheus, metric_names, prometheus
from tests.serving.conftest import eventually
from tests.serving.open_loop import Load, answers
from tests.tiny_bundle import write_tiny_bundle

pytestmark = [pytest.mark.integration, pytest.mark.slow]

SLO_MS = 4321
"""No bound of Envoy's own; long enough that nothing is late and nothing refused."""
FROM_ELSEWHERE = ("kube_", "container_", "nv_gpu_")
"""Series of kube-state-metrics, of the kubelet, of machines with a GPU."""


@dataclass(frozen=True)
class Run:
    """A load test that has run, and when, by the wall clock."""

    verdict: Verdict
    timeline: Timeline
    began: float
    in_flight: float
    """Requests, by Little's law."""

    @property
    def ended(self) -> float:
        return self.began + self.verdict.duration_s


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("live")


@pytest.fixture(scope="module")
def endpoint(folder: Path) -> Iterator[serving.Endpoint]:
    bundle = write_tiny_bundle(folder / "bundle")
    limits = Limits(slo_ms=SLO_MS, rate=100_000)
    section = Serve(port=0, instances=2, queue_delay_us=300_000, limits=limits)
    repository = serving.write_repository(bundle, folder / "repository", section).path
    with serving.start(repository, section) as running:
        yield running


@pytest.fixture(scope="module")
def watching(endpoint: serving.Endpoint, helm: Path, folder: Path) -> Iterator[Prometheus]:
    settings = ("alerts.enabled=true", "autoscaling.type=hpa", f"slo.latencyMs={SLO_MS}", "alerts.drift.minTexts=1")
    [manifest] = render(helm, "templates/prometheusrule.yaml", *settings)
    with prometheus(endpoint.metrics_port, folder, manifest["spec"]["groups"]) as running:
        assert eventually(lambda: running.answers)
        yield running


@pytest.fixture(scope="module")
def before(watching: Prometheus, helm: Path, folder: Path) -> dict[str, float | None]:
    """What autoscalers see before the first request; a rate needs two scrapes."""
    queries = {
        f"{way} {signal}": query
        for signal in ("inFlight", "busyInstances", "queueMs")
        for way, query in (("keda", keda_query(helm, folder, signal)), ("adapter", adapter_query(signal, [POD])))
    }
    assert eventually(lambda: all(watching.ask(query) for query in queries.values()), 10)
    return {name: watching.value(query) for name, query in queries.items()}


@pytest.fixture(scope="module")
def load(endpoint: serving.Endpoint, watching: Prometheus, before: dict[str, float | None], folder: Path) -> Run:
    bundle = Bundle.open(folder / "bundle")
    # Long ones, so that the model has something to do.
    texts = [f"{word} {'the box is ' * 1500}" for word in ("good", "bad", "report", "excellent", "worst")]
    right = answers(bundle, texts)
    pq.write_table(pa.table({"text": texts, "predicted": [right[text] for text in texts]}), folder / "texts.parquet")
    section = LoadTest(rate=40, duration_s=25, warmup_s=3, batch_size=8, max_dispatch_lag_ms=1e9)
    artifact = loadtests.run(
        bundle, endpoint.address, section, folder / "verdict", texts=folder / "texts.parquet", page=False,
        metrics_url=endpoint.metrics_url,
    )  # fmt: skip
    samples = read_samples(artifact.path / "samples.parquet")
    measured = samples.filter(np.logical_not(samples["warmup"].to_numpy()))
    monotonic = float(samples.schema.metadata[STARTED.encode()])
    return Run(
        Verdict.model_validate(artifact.json("verdict.json")),
        Timeline.model_validate(artifact.json("timeline.json")),
        began=time.time() - time.monotonic() + monotonic,
        in_flight=float(np.sum(measured["service_ms"])) / 1000 / section.duration_s,
    )


def test_the_signals_are_there_and_zero_before_the_first_request(before: dict[str, float | None]) -> None:
    for way in ("keda", "adapter"):
        assert before[f"{way} inFlight"] == 0
        assert before[f"{way} queueMs"] == 0
        # Two health checks a second are work for the instances.
        busy = before[f"{way} busyInstances"]
        assert busy is not None
        assert 0 <= busy < 0.1


def test_in_flight_is_what_littles_law_says_of_the_load_testers_samples(
    watching: Prometheus, load: Run, helm: Path, folder: Path
) -> None:
    assert load.verdict.failures == {}
    over = f"[{load.verdict.duration_s:.0f}s:1s]"
    for query in (keda_query(helm, folder, "inFlight"), adapter_query("inFlight", [POD])):
        seen = watching.value(f"avg_over_time(({query}){over})", load.ended)
        assert seen == pytest.approx(load.in_flight, rel=0.25)
        assert load.in_flight > 2


def test_requests_a_second_are_those_that_the_load_tester_sent(watching: Prometheus, load: Run) -> None:
    window = f"[{load.verdict.duration_s:.0f}s]"
    door = f'sum(increase(envoy_http_downstream_rq_xx{{envoy_http_conn_manager_prefix="front",pod="{POD}"}}{window}))'
    model = f'sum(increase(slipway_queue_seconds_count{{pod="{POD}"}}{window}))'
    for query in (door, model):
        assert watching.value(query, load.ended) == pytest.approx(load.verdict.scheduled, rel=0.1)


def test_the_wait_is_between_that_in_tritons_queue_and_what_callers_waited(
    watching: Prometheus, load: Run, helm: Path, folder: Path
) -> None:
    works = [reading.work for reading in load.timeline.readings if reading.work]
    in_triton = sum(work.requests * work.queue_ms for work in works) / sum(work.requests for work in works)
    for query in (keda_query(helm, folder, "queueMs"), adapter_query("queueMs", [POD])):
        waited = watching.value(query, load.ended)
        assert waited is not None
        # The door's clock starts before Triton's; and Triton counts its health checks, which wait, too.
        assert 0.8 * in_triton < waited < load.verdict.latency.mean
        assert waited > 50


def test_busy_instances_are_the_computing_that_triton_counted(
    watching: Prometheus, load: Run, helm: Path, folder: Path
) -> None:
    works = [reading.work for reading in load.timeline.readings if reading.work]
    computed_s = sum(work.executions * work.compute_ms for work in works) / 1000
    for query in (keda_query(helm, folder, "busyInstances"), adapter_query("busyInstances", [POD])):
        busy = watching.value(query.replace("[60s]", "[25s]").replace("[1m]", "[25s]"), load.ended)
        assert busy is not None
        assert 0.05 < busy < 2
        assert busy == pytest.approx(computed_s / load.verdict.duration_s, rel=0.25)


def test_the_objectives_are_recorded_and_met(watching: Prometheus, load: Run) -> None:
    about = f'{{namespace="{NAMESPACE}",deployment="reviews-slipway"}}'
    assert watching.value(f"slipway:failures:ratio_rate5m{about}", load.ended) == 0
    assert watching.value(f"slipway:late:ratio_rate5m{about}", load.ended) == 0
    assert watching.value(f"slipway:slo_latency:seconds{about}", load.ended) == SLO_MS / 1000
    requests = watching.value(f"slipway:requests:rate5m{about}", load.ended)
    assert requests is not None
    assert requests > 0
    assert {one["metric"]["signal"] for one in watching.ask(f"slipway:target{about}")} == {"inFlight", "busyInstances"}
    assert watching.ask('ALERTS{alertstate="firing"}') == []


def total(endpoint: serving.Endpoint, name: str, **labels: str) -> float:
    """Of a page's series of the front door or the model; counters' names end in `_total`, whatever Envoy calls them."""
    wanted = {"envoy_http_conn_manager_prefix": "front", **labels}
    return sum(
        sample.value
        for family in text_string_to_metric_families(httpx.get(endpoint.metrics_url).text)
        for sample in family.samples
        if sample.name == name and all(sample.labels.get(label, value) == value for label, value in wanted.items())
    )


def test_what_overload_refuses_is_a_5xx_over_http_and_over_grpc_only_in_envoys_count_of_both(folder: Path) -> None:
    # The rules take the larger of the two: so neither is missed, and none is counted twice.
    bundle = write_tiny_bundle(folder / "small")
    section = Serve(port=0, instances=1, queue_delay_us=300_000, limits=Limits(slo_ms=SLO_MS, max_in_flight=2))
    repository = serving.write_repository(bundle, folder / "small-repository", section).path
    with serving.start(repository, section) as endpoint:
        blocked = "envoy_http_adaptive_concurrency_gradient_controller_rq_blocked_total"
        by_class = "envoy_http_downstream_rq_xx_total"
        with Load(endpoint.address, endpoint.model, ["good"], rate=60, protocols=["grpc"]) as grpc:
            assert eventually(lambda: grpc.count("refused") >= 20)
        assert eventually(lambda: total(endpoint, blocked) == grpc.count("refused"))
        assert total(endpoint, by_class, envoy_response_code_class="5") == 0
        assert total(endpoint, by_class, envoy_response_code_class="2") >= len(grpc.outcomes)
        # The endpoint itself asked once, at its start.
        assert total(endpoint, "envoy_cluster_grpc_ModelInfer_0_total") == grpc.count("answered") + 1
        assert total(endpoint, "envoy_cluster_grpc_ModelInfer_14_total") == 0
        with Load(endpoint.address, endpoint.model, ["good"], rate=60, protocols=["http"]) as http:
            assert eventually(lambda: http.count("refused") >= 20)
        assert eventually(
            lambda: (
                total(endpoint, by_class, envoy_response_code_class="5")
                == http.count("refused")
                == total(endpoint, blocked) - grpc.count("refused")
            )
        )


def test_health_checks_of_the_front_door_are_no_requests(
    watching: Prometheus, load: Run, endpoint: serving.Endpoint
) -> None:
    def counted(name: str) -> float:
        return total(endpoint, name)

    names = ("envoy_http_downstream_rq_xx_total", "slipway_predictions_total", "slipway_confidence_count")
    timed = "envoy_http_downstream_rq_time_count"
    assert eventually(lambda: counted("slipway_predictions_total") == counted("slipway_confidence_count") > 0)
    was, was_timed = {name: counted(name) for name in names}, counted(timed)
    with httpx.Client(base_url=endpoint.url) as client:
        for path in ("/healthz", "/v2/health/live", "/v2/health/ready"):
            for _ in range(20):
                assert client.get(path).status_code == 200
    # Their times are in the histogram; that is why the share of late answers is of `rq_xx` and not of its count.
    assert eventually(lambda: counted(timed) >= was_timed + 60)
    worked = counted("slipway_rows_total")
    assert eventually(lambda: counted("slipway_rows_total") >= worked + 4)
    assert {name: counted(name) for name in names} == was


def queries_of_the_dashboard() -> list[tuple[str, str]]:
    """Title of a panel and a query of it, with the variables filled in as Grafana does."""
    found = []
    release = "reviews-slipway"
    values = {"$namespace": NAMESPACE, "${release}": release, "$release": release, "$__rate_interval": "10s"}
    for panel in json.loads(FILE.read_text(encoding="utf-8"))["panels"]:
        for target in panel.get("targets") or []:
            query = target["expr"]
            for variable, value in values.items():
                query = query.replace(variable, value)
            found.append((panel["title"], query))
    return found


def test_every_query_of_the_dashboard_runs_and_asks_for_series_that_are_there(watching: Prometheus, load: Run) -> None:
    queries = queries_of_the_dashboard()
    assert len(queries) > 60
    there = {one["metric"]["__name__"] for one in watching.ask('count by (__name__) ({__name__!=""})')}
    for title, query in queries:
        assert "$" not in query
        watching.ask(query, load.ended)
        for name in metric_names(query):
            # gRPC's counters and those of capture begin with the first of their kind.
            begun_later = name.startswith("envoy_cluster_grpc_") or name == "slipway_captured_rows_total"
            assert name in there or begun_later or name.startswith(FROM_ELSEWHERE), f"{title}: {name} is nowhere"


def test_every_panel_shows_something_under_load_unless_it_is_of_something_else(watching: Prometheus, load: Run) -> None:
    empty: dict[str, Any] = {}
    for title, query in queries_of_the_dashboard():
        empty.setdefault(title, True)
        empty[title] = empty[title] and not watching.ask(query, load.ended)
    assert {title for title, nothing in empty.items() if nothing} == {
        "Duty", "Memory", "Power", "GPU duty, a replica", "Replicas", "Processor",  # from elsewhere
        "gRPC failures", "Captured texts", "Certificate", "Labels against a week ago",  # nothing to show yet
    }  # fmt: skip


def test_every_rule_asks_for_series_that_are_there(watching: Prometheus, load: Run) -> None:
    answer = httpx.get(f"{watching.url}/api/v1/rules").json()["data"]["groups"]
    rules = [rule for group in answer for rule in group["rules"]]
    there = {one["metric"]["__name__"] for one in watching.ask('count by (__name__) ({__name__!=""})')}
    for rule in rules:
        assert rule["health"] == "ok", rule
        for name in metric_names(rule["query"]):
            elsewhere = name.startswith((*FROM_ELSEWHERE, "certmanager_"))
            begun_later = name.startswith("envoy_cluster_grpc_") or name == "slipway_captured_rows_total"
            assert name in there or elsewhere or begun_later, f"{rule['name']}: {name} is nowhere"
