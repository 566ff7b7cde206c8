"""A real Prometheus that scrapes a real endpoint as the PodMonitor would have it, once a second."""

import contextlib
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from serving.server.triton import free_ports
from tests.helm.rules import NAMESPACE, POD


@dataclass(frozen=True)
class Prometheus:
    """Answers PromQL at `url`."""

    url: str

    def ask(self, query: str, at: float | None = None) -> list[dict[str, Any]]:
        """The series of an instant query, now or at a moment of the wall clock. Raises if the query is none."""
        about = {"query": query} | ({} if at is None else {"time": str(at)})
        answer = httpx.post(f"{self.url}/api/v1/query", data=about, timeout=30).json()
        assert answer["status"] == "success", f"{query}: {answer.get('error')}"
        found = answer["data"]
        if found["resultType"] == "scalar":
            return [{"metric": {}, "value": found["result"]}]
        series: list[dict[str, Any]] = found["result"]
        return series

    def value(self, query: str, at: float | None = None) -> float | None:
        """Of a query with one series; None if there is none yet."""
        found = self.ask(query, at)
        assert len(found) <= 1, f"{query}: {len(found)} series"
        return float(found[0]["value"][1]) if found else None

    @property
    def answers(self) -> bool:
        """Whether it is up and has scraped."""
        try:
            return self.value("sum(up)") == 1
        except (httpx.HTTPError, ValueError):
            return False


@contextlib.contextmanager
def prometheus(metrics_port: int, folder: Path, groups: list[Any]) -> Iterator[Prometheus]:
    """With these groups of rules, evaluated once a second."""
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("prometheus is not installed")
    rules = folder / "rules.yml"
    hurried = [{**group, "interval": "1s"} for group in groups]
    rules.write_text(yaml.safe_dump({"groups": hurried}, sort_keys=False, width=10_000), encoding="utf-8")
    target = {"targets": [f"127.0.0.1:{metrics_port}"], "labels": {"namespace": NAMESPACE, "pod": POD}}
    configuration = folder / "prometheus.yml"
    configuration.write_text(
        yaml.safe_dump(
            {
                "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
                "rule_files": [str(rules)],
                "scrape_configs": [{"job_name": "slipway", "static_configs": [target]}],
            }
        ),
        encoding="utf-8",
    )
    [port] = free_ports(1)
    options = [f"--web.listen-address=127.0.0.1:{port}", f"--storage.tsdb.path={folder / 'data'}"]
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen([program, f"--config.file={configuration}", *options], stdout=log, stderr=log)
    try:
        yield Prometheus(f"http://127.0.0.1:{port}")
    finally:
        process.terminate()
        process.wait(30)


def metric_names(query: str) -> set[str]:
    """What a query of ours selects: each selector of ours has braces."""
    return set(re.findall(r"([a-zA-Z_:][a-zA-Z0-9_:]*)\{", query))
