"""The chart's alert rules, rendered by the real Helm, and what promtool makes of them when series are fed to them."""

import subprocess
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.helm.cases import MINIMAL
from tests.helm.rendering import Manifests, render_chart

RELEASE, NAMESPACE = "reviews", "ml"
POD = "reviews-slipway-6c7bf9d5c4-x2x9k"
POD_LABELS = f'namespace="{NAMESPACE}",pod="{POD}"'


def render(helm: Path, template: str, *settings: str, release: str = RELEASE) -> Manifests:
    """The manifests of one template; `settings` as of `--set`, over the minimal values. Raises `RefusedError`."""
    options = [f"--show-only={template}", *(f"--set={setting}" for setting in settings)]
    return render_chart(helm, MINIMAL, *options, release=release, namespace=NAMESPACE)


@dataclass(frozen=True)
class Case:
    """Series, and whether an alert fires on them.

    `series` maps what Prometheus calls a series to promtool's notation of its values, `START+STEPxTIMES`, a value each
    `interval`; the alert is looked at after `at`.
    """

    alert: str
    fires: bool
    series: Mapping[str, str]
    at: str
    labels: Mapping[str, str] = field(default_factory=dict)
    """Which of the alerts of this name."""
    interval: str = "1m"
    because: str = ""

    @property
    def name(self) -> str:
        which = "-".join(self.labels.values())
        return f"{self.alert}{'-' + which if which else ''}-{'fires' if self.fires else 'quiet'}-{self.because}"

    @property
    def selector(self) -> str:
        wanted = {"alertname": self.alert, "alertstate": "firing", **self.labels}
        return "ALERTS{" + ",".join(f'{name}="{value}"' for name, value in wanted.items()) + "}"


def group(case: Case, **looks: Any) -> dict[str, Any]:
    """One entry of a promtool test."""
    series = [{"series": name, "values": values} for name, values in case.series.items()]
    return {"name": case.name, "interval": case.interval, "input_series": series, **looks}


def promtool_test(promtool: str, rules: Path, entries: Iterable[dict[str, Any]], interval: str) -> tuple[int, str]:
    """Exit code of `promtool test rules`, and what it says."""
    about = {"rule_files": [str(rules)], "evaluation_interval": interval, "tests": list(entries)}
    with tempfile.NamedTemporaryFile("w", suffix=".yml", dir=rules.parent, encoding="utf-8") as file:
        yaml.safe_dump(about, file, sort_keys=False)
        file.flush()
        done = subprocess.run([promtool, "test", "rules", file.name], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr
