"""The queries of the autoscalers, made as KEDA's ScaledObject and the adapter make them."""

import shutil
from pathlib import Path
from typing import Any

import yaml

from tests.helm.rendering import CHART, render_chart
from tests.helm.rules import NAMESPACE, RELEASE

SIGNALS = ("inFlight", "busyInstances", "queueMs", "gpuDuty")
ADAPTER_METRICS = {
    "inFlight": "slipway_in_flight",
    "busyInstances": "slipway_busy_instances",
    "queueMs": "slipway_queue_ms",
    "gpuDuty": "slipway_gpu_duty",
}


def keda_query(helm: Path, folder: Path, signal: str, *settings: str) -> str:
    """What the named template `slipway.signal.SIGNAL` gives: a chart of its helpers, and a manifest that says it."""
    chart = folder / "chart"
    if not chart.exists():
        (chart / "templates").mkdir(parents=True)
        for file in ("Chart.yaml", "values.yaml", "hardware.yaml"):
            shutil.copy(CHART / file, chart / file)
        for file in CHART.glob("templates/_*.tpl"):
            shutil.copy(file, chart / "templates" / file.name)
    query = chart / "templates" / "signal.yaml"
    query.write_text(f'query: {{{{ include "slipway.signal.{signal}" . | toJson }}}}\n', encoding="utf-8")
    options = [f"--set={setting}" for setting in settings]
    [manifest] = render_chart(helm, {}, *options, chart=chart, release=RELEASE, namespace=NAMESPACE)
    return str(manifest["query"])


def adapter_query(signal: str, pods: list[str]) -> str:
    """What prometheus-adapter asks for the pods of a workload: its placeholders filled in as it does."""
    values: Any = yaml.safe_load((CHART / "prometheus-adapter.yaml").read_text(encoding="utf-8"))
    [rule] = [one for one in values["rules"]["custom"] if one["name"]["as"] == ADAPTER_METRICS[signal]]
    names = "|".join(pods)
    filled = {
        "<<.Series>>": rule["seriesQuery"].partition("{")[0],
        "<<.LabelMatchers>>": f'namespace="{NAMESPACE}",pod=~"{names}"',
        "<<.GroupBy>>": "pod",
    }
    query = str(rule["metricsQuery"])
    for placeholder, text in filled.items():
        query = query.replace(placeholder, text)
    return query
