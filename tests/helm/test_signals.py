"""The queries that autoscalers ask, as the chart's templates and the adapter's values have them."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.helm.rendering import CHART, RefusedError
from tests.helm.rules import NAMESPACE
from tests.helm.signals import ADAPTER_METRICS, SIGNALS, keda_query

pytestmark = pytest.mark.integration

PODS = f'namespace="{NAMESPACE}",pod=~"reviews-slipway(-[^-]+){{1,2}}"'


def test_signals_are_totals_over_the_pods_of_the_release(helm: Path, tmp_path: Path) -> None:
    assert keda_query(helm, tmp_path, "inFlight") == (
        f'sum(envoy_http_downstream_rq_active{{envoy_http_conn_manager_prefix="front",{PODS}}})'
    )
    assert (
        keda_query(helm, tmp_path, "busyInstances")
        == f'sum(rate(slipway_execute_seconds_sum{{step="fused",{PODS}}}[60s]))'
    )
    assert keda_query(helm, tmp_path, "gpuDuty") == f"sum(avg by (pod) (nv_gpu_utilization{{{PODS}}}))"


@pytest.mark.parametrize("signal", SIGNALS)
def test_an_absent_series_is_zero_only_where_no_pod_is_an_ordinary_state(
    helm: Path, tmp_path: Path, signal: str
) -> None:
    assert "vector(0)" not in keda_query(helm, tmp_path, signal)
    assert keda_query(helm, tmp_path, signal, "autoscaling.minReplicas=0").endswith(" or vector(0)")


@pytest.mark.parametrize(("interval", "window"), [("1s", "60s"), ("10s", "60s"), ("30s", "120s"), ("1m", "240s")])
def test_rates_are_taken_over_four_scrapes_at_least(helm: Path, tmp_path: Path, interval: str, window: str) -> None:
    for signal in ("busyInstances", "queueMs"):
        assert f"[{window}]" in keda_query(helm, tmp_path, signal, f"observability.scrapeInterval={interval}")


def test_an_interval_that_is_none_is_refused_with_its_name(helm: Path, tmp_path: Path) -> None:
    with pytest.raises(RefusedError) as raised:
        keda_query(helm, tmp_path, "busyInstances", "observability.scrapeInterval=soon")
    assert "observability.scrapeInterval must be whole seconds or minutes" in str(raised.value)


def test_the_adapter_has_a_metric_for_each_signal_by_namespace_and_pod() -> None:
    values: Any = yaml.safe_load((CHART / "prometheus-adapter.yaml").read_text(encoding="utf-8"))
    rules = values["rules"]["custom"]
    assert {rule["name"]["as"] for rule in rules} == set(ADAPTER_METRICS.values())
    for rule in rules:
        assert rule["resources"]["overrides"] == {"namespace": {"resource": "namespace"}, "pod": {"resource": "pod"}}
        assert 'namespace!="",pod!=""' in rule["seriesQuery"]
        assert "<<.LabelMatchers>>" in rule["metricsQuery"]
        assert "by (<<.GroupBy>>)" in rule["metricsQuery"]
