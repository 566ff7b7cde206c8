"""What the model counts, on a recorder and on the page of a real Triton with several model processes."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

import serving
from serving.model.observation import Answered, Executed, Request
from serving.model.observers import Guarded, make_observer
from serving.model.settings import Loaded, Settings
from serving.observability.metrics import SECONDS, SHARES, Metrics, Registry
from serving.protocol import inference_body
from slipway.bundle import Bundle
from slipway.processes import marked_processes
from slipway.recipe import Serve
from tests.serving.conftest import eventually
from tests.serving.counting_triton import CountingTriton
from tests.tiny_bundle import LABELS

LONG = 1e6
"""Seconds: no flush but the one at the end."""


def executed(
    *answered: Answered,
    refused: tuple[tuple[Request, str], ...] = (),
    tokens: int = 10,
    padded: int = 2,
    started: float = 100.0,
) -> Executed:
    runs = 1 if answered else 0
    times = (started, started + 0.001 * runs, started + 0.011 * runs, started + 0.012)
    return Executed(*times, tokens, padded, runs, answered, refused)  # type: ignore[arg-type]


def answered(*labels: str, score: float = 0.9, request: Request | None = None, truncated: bool = False) -> Answered:
    count = len(labels)
    texts = ["some text"] * count
    return Answered(
        request or Request(arrived_s=99.9), texts, labels, [score] * count, [truncated] * count, [1] * count
    )


def counted(*batches: Executed) -> CountingTriton:
    triton = CountingTriton()
    metrics = Metrics(Registry(triton, {"model": "tiny", "version": "1"}), LABELS, interval_s=LONG)
    for batch in batches:
        metrics.executed(batch)
    metrics.close()
    return triton


@pytest.mark.unit
def test_every_series_is_there_before_the_first_request() -> None:
    triton = counted()
    assert set(triton.values.values()) == {0.0}
    assert {dict(labels)["label"] for name, labels in triton.values if name == "slipway_predictions_total"} == set(
        LABELS
    )
    for reason in ("bad_text", "too_long", "bad_parameter", "deadline", "cancelled", "internal"):
        assert triton.value("slipway_refused_total", reason=reason) == 0
    assert triton.value("slipway_queue_seconds_bucket", le="+Inf") == 0
    assert all(dict(labels).items() >= {"model": "tiny", "version": "1"}.items() for _, labels in triton.values)


@pytest.mark.unit
def test_work_and_answers_are_counted() -> None:
    triton = counted(
        executed(answered("positive", "negative"), answered("positive", truncated=True)),
        executed(refused=((Request(), "bad_text"),), tokens=0, padded=0),
    )
    assert triton.value("slipway_batches_total") == 2
    assert triton.value("slipway_requests_total") == 2
    assert triton.value("slipway_rows_total") == 3
    assert triton.value("slipway_windows_total") == 3
    assert triton.value("slipway_truncated_rows_total") == 1
    assert triton.value("slipway_tokens_total", kind="text") == 10
    assert triton.value("slipway_tokens_total", kind="padding") == 2
    assert triton.value("slipway_predictions_total", label="positive") == 2
    assert triton.value("slipway_predictions_total", label="neutral") == 0
    assert triton.value("slipway_refused_total", reason="bad_text") == 1
    assert triton.value("slipway_confidence_count") == 3
    # A call without a run has no time of inference.
    assert triton.value("slipway_compute_seconds_count") == 1
    assert triton.value("slipway_execute_seconds_count") == 2


@pytest.mark.unit
def test_a_health_check_is_work_and_no_text_of_a_caller() -> None:
    triton = counted(executed(answered("positive", request=Request())))
    assert triton.value("slipway_requests_total") == triton.value("slipway_rows_total") == 1
    assert triton.value("slipway_predictions_total", label="positive") == 0
    assert triton.value("slipway_confidence_count") == 0
    assert triton.value("slipway_queue_seconds_count") == 0


@pytest.mark.unit
def test_queue_time_is_from_the_front_doors_header_to_the_start_and_unknown_without_it() -> None:
    early, late, unknown = Request(arrived_s=99.7), Request(arrived_s=100.5), Request()
    triton = counted(executed(answered("positive", request=early), answered("positive", request=unknown)))
    assert triton.value("slipway_queue_seconds_count") == 1
    assert triton.value("slipway_queue_seconds_sum") == pytest.approx(0.3)
    assert triton.value("slipway_queue_seconds_bucket", le="0.25") == 0
    assert triton.value("slipway_queue_seconds_bucket", le="0.5") == 1
    # A clock that was set back makes no negative time.
    assert counted(executed(answered("positive", request=late))).value("slipway_queue_seconds_sum") == 0


@pytest.mark.unit
@given(st.lists(st.floats(0, 20), max_size=50))
@settings(deadline=None, max_examples=50)
def test_buckets_are_cumulative_and_the_last_has_all(values: list[float]) -> None:
    triton = CountingTriton()
    registry = Registry(triton, {})
    histogram = registry.histogram("x", "of a test", SECONDS)
    registry.add(histogram.observe(values))
    registry.flush()
    for bound in SECONDS:
        assert triton.value("x_bucket", le=f"{bound:g}") == sum(value <= bound for value in values)
    assert triton.value("x_bucket", le="+Inf") == triton.value("x_count") == len(values)
    assert triton.value("x_sum") == pytest.approx(sum(values))


@pytest.mark.unit
def test_a_probability_that_rounding_made_larger_than_one_is_in_the_last_bucket() -> None:
    triton = counted(executed(answered("positive", score=1.0000001)))
    assert triton.value("slipway_confidence_bucket", le=f"{SHARES[-1]:g}") == 1


@pytest.mark.unit
def test_requests_cost_no_message_and_a_flush_one_for_each_counter_that_changed() -> None:
    triton = CountingTriton()
    metrics = Metrics(Registry(triton, {}), LABELS, interval_s=LONG)
    for _ in range(1000):
        metrics.executed(executed(answered("positive")))
    assert triton.messages == 0
    metrics.close()
    assert 0 < triton.messages < 100
    assert triton.value("slipway_requests_total") == 1000


@pytest.mark.unit
def test_an_observer_that_fails_is_counted_said_once_without_its_words_and_the_others_are_told() -> None:
    class Broken:
        def executed(self, batch: Executed) -> None:
            raise RuntimeError("the text was: my secret")

        def close(self) -> None:
            raise RuntimeError("my secret")

    triton = CountingTriton()
    registry = Registry(triton, {})
    metrics = Metrics(registry, LABELS, interval_s=LONG)
    observer = Guarded([Broken(), metrics], triton.Logger, registry)
    observer.executed(executed(answered("positive")))
    observer.executed(executed(answered("positive")))
    observer.close()
    assert triton.value("slipway_requests_total") == 2
    assert triton.value("slipway_observer_failures_total") >= 2
    [warning] = triton.warnings
    assert "Broken failed with RuntimeError" in warning
    assert "secret" not in warning


@pytest.mark.unit
def test_without_settings_the_model_counts_and_writes_nothing(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("SLIPWAY_OBSERVE", raising=False)
    version = tmp_path / "tiny" / "7"
    version.mkdir(parents=True)
    triton = CountingTriton()
    observer = make_observer(triton, Loaded(version, bundle.spec, Settings("cpu"), 0))
    observer.executed(executed(answered("positive")))
    observer.close()
    assert triton.value("slipway_requests_total", model="tiny", version="7", step="fused") == 1
    assert list(version.iterdir()) == []


def series(page: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Every sample of a page, by name and labels; the parser is Prometheus' own for Python."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


def total(page: str, name: str, **labels: str) -> float:
    return sum(
        value for (found, has), value in series(page).items() if found == name and labels.items() <= dict(has).items()
    )


@pytest.fixture(scope="module")
def watched(repository: Path) -> Iterator[serving.Endpoint]:
    with serving.start(repository, Serve(port=0)) as running:
        yield running


def ask(endpoint: serving.Endpoint, text: str) -> httpx.Response:
    return httpx.post(f"{endpoint.url}/v2/models/{endpoint.model}/infer", json=inference_body(text), timeout=30)


@pytest.mark.integration
def test_one_page_has_the_metrics_of_triton_of_envoy_and_of_the_model(watched: serving.Endpoint) -> None:
    page = httpx.get(watched.metrics_url)
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/plain; version=0.0.4")
    # The parser gives every counter the ending that its name should have.
    names = {name for name, _ in series(page.text)}
    assert {"nv_inference_request_success_total", "envoy_http_downstream_rq_total", "slipway_rows_total"} <= names
    assert total(page.text, "slipway_up", component="triton", backend="stable") == 1
    assert total(page.text, "slipway_up", component="envoy") == 1
    assert total(page.text, "slipway_metric_conflicts") == 0
    kinds = {family.name: family.type for family in text_string_to_metric_families(page.text)}
    assert kinds["slipway_queue_seconds"] == "histogram"
    assert kinds["slipway_tokens"] == "counter"


@pytest.mark.integration
def test_counts_of_all_model_processes_add_up(watched: serving.Endpoint) -> None:
    before = httpx.get(watched.metrics_url).text
    with serving.Client(watched.address, watched.model) as client:
        for _ in range(20):
            client.classify(["good", "bad"])

    def grown(name: str, **labels: str) -> float:
        return total(httpx.get(watched.metrics_url).text, name, **labels) - total(before, name, **labels)

    # What came before may be handed over only now.
    assert eventually(lambda: grown("slipway_predictions_total", label="negative") >= 20)
    assert eventually(lambda: grown("slipway_predictions_total", label="positive") >= 20)
    counted = "slipway_confidence_count"
    assert eventually(
        lambda: (
            (page := httpx.get(watched.metrics_url).text)
            and total(page, "slipway_predictions_total") == total(page, counted)
        )
    )
    # The front door's checks are rows, too, and nobody's texts.
    texts = total(httpx.get(watched.metrics_url).text, counted)
    rows = total(httpx.get(watched.metrics_url).text, "slipway_rows_total")
    assert eventually(lambda: total(httpx.get(watched.metrics_url).text, "slipway_rows_total") >= rows + 3)
    assert total(httpx.get(watched.metrics_url).text, counted) == texts


@pytest.mark.integration
def test_refusals_are_counted_by_reason(watched: serving.Endpoint) -> None:
    before = total(httpx.get(watched.metrics_url).text, "slipway_refused_total", reason="bad_text")
    assert ask(watched, "   ").status_code == 400
    assert eventually(
        lambda: total(httpx.get(watched.metrics_url).text, "slipway_refused_total", reason="bad_text") == before + 1
    )


@pytest.mark.integration
def test_promtool_finds_nothing_wrong_with_our_part_of_the_page(watched: serving.Endpoint, promtool: str) -> None:
    ours = "\n".join(
        line
        for line in httpx.get(watched.metrics_url).text.splitlines()
        if line.split(" ")[2 * line.startswith("#")].startswith("slipway_")
    )
    result = subprocess.run(
        [promtool, "check", "metrics"], input=ours + "\n", capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.integration
def test_health_can_be_asked_beside_the_metrics_and_fails_with_the_model(watched: serving.Endpoint) -> None:
    def healthy() -> int:
        return httpx.get(f"{watched.metrics_url.removesuffix('/metrics')}/healthz", timeout=30).status_code

    assert healthy() == 200
    [stub, *_] = [
        process
        for process in marked_processes(watched.access_log.parent.name)
        if "triton_python_backend_stub" in process.name()
    ]
    stub.suspend()
    try:
        assert eventually(lambda: healthy() == 503)
    finally:
        stub.resume()
    assert eventually(lambda: healthy() == 200)


@pytest.mark.integration
def test_a_killed_exporter_is_replaced_on_the_same_port(watched: serving.Endpoint) -> None:
    [victim] = [
        process
        for process in marked_processes(watched.access_log.parent.name)
        if "serving.observability.exporter" in process.cmdline()
    ]
    victim.kill()
    assert eventually(lambda: httpx.get(watched.metrics_url, timeout=30).status_code == 200)


@pytest.mark.unit
def test_a_sum_that_triton_does_not_take_is_handed_over_the_next_time() -> None:
    triton = CountingTriton()
    registry = Registry(triton, {})
    place = registry.counter("x_total", "of a test")
    triton.failing = True
    registry.add([(place, 3)])
    registry.flush()
    triton.failing = False
    registry.flush()
    assert triton.value("x_total") == 3
