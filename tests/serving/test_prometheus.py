"""A real Prometheus reads the page, and its quantiles come out of our histograms."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

import serving
from serving.server.triton import free_ports
from tests.serving.conftest import eventually

pytestmark = [pytest.mark.integration, pytest.mark.slow]

CONFIGURATION = """
global: {{scrape_interval: 1s, scrape_timeout: 1s}}
scrape_configs:
- job_name: slipway
  static_configs: [{{targets: ["{target}"]}}]
"""


@pytest.fixture
def prometheus(endpoint: serving.Endpoint, tmp_path: Path) -> Iterator[str]:
    """URL of a Prometheus that scrapes the endpoint once a second."""
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("prometheus is not installed")
    [port] = free_ports(1)
    file = tmp_path / "prometheus.yml"
    file.write_text(CONFIGURATION.format(target=f"127.0.0.1:{endpoint.metrics_port}"), encoding="utf-8")
    options = [f"--web.listen-address=127.0.0.1:{port}", f"--storage.tsdb.path={tmp_path / 'data'}"]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen([program, f"--config.file={file}", *options], stdout=log, stderr=log)
    yield f"http://127.0.0.1:{port}"
    process.terminate()
    process.wait(30)


def ask(prometheus: str, query: str) -> list[float]:
    """The values of an instant query; none while Prometheus starts."""
    try:
        answer = httpx.get(f"{prometheus}/api/v1/query", params={"query": query}).raise_for_status().json()
    except httpx.HTTPError:
        return []
    return [float(series["value"][1]) for series in answer["data"]["result"]]


def test_questions_of_the_documentation_have_answers(endpoint: serving.Endpoint, prometheus: str) -> None:
    assert eventually(lambda: ask(prometheus, "up") == [1.0])
    with serving.Client(endpoint.address, endpoint.model) as client:

        def answered(query: str) -> bool:
            client.classify(["good", "bad"])
            return any(value > 0 for value in ask(prometheus, query))

        for name in ("queue", "compute", "execute"):
            quantile = f"histogram_quantile(0.99, sum by (le) (rate(slipway_{name}_seconds_bucket[20s])))"
            assert eventually(lambda query=quantile: answered(query)), name
        assert eventually(lambda: answered("sum(rate(slipway_requests_total[20s]))"))
        door = (
            "histogram_quantile(0.5, sum by (le) (rate(envoy_http_downstream_rq_time_bucket{"
            'envoy_http_conn_manager_prefix="front"}[20s])))'
        )
        assert eventually(lambda: answered(door))
    # Known at zero: an alert on it can be evaluated before the first refusal.
    assert 0.0 in ask(prometheus, 'slipway_refused_total{reason="internal"}')
