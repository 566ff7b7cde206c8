"""Record what a real HorizontalPodAutoscaler decides: traces that `tests/autoscaling/test_recorded.py` decides again.

    python -m benchmarks.kubernetes.record OUT [--seconds 240]

needs etcd, kube-apiserver and kube-controller-manager on PATH, and helm for the chart's own autoscaler. Each scenario
(`scenarios.py`) is a Deployment and an HPA in one control plane; nobody but the controller changes replicas. This
process is the metrics' API, which writes down what it answers and the pods at that moment, and the kubelet, which says
which pods run. What the controller decided is what the Deployment is set to when the controller asks next.

Written to OUT for each scenario: NAME.yaml, the manifest, and NAME.jsonl, the trace; and `controller.json`, versions
and flags. Takes one core or less, for `--seconds`.
"""

import argparse
import itertools
import json
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml

from benchmarks.kubernetes.control_plane import Api, control_plane, programs, server_context
from benchmarks.kubernetes.scenarios import Scenario, Seen, scenarios

NAMESPACE = "default"
SYNC_S = 4
FLAGS = {
    "horizontal-pod-autoscaler-sync-period": f"{SYNC_S}s",
    "horizontal-pod-autoscaler-downscale-stabilization": "47s",
    "horizontal-pod-autoscaler-cpu-initialization-period": "24s",
    "horizontal-pod-autoscaler-initial-readiness-delay": "9s",
}
_WINDOW_S = 10
_CLOCKS_APART_S = 2.0
_GROUPS = {"custom.metrics.k8s.io": "v1beta1", "external.metrics.k8s.io": "v1beta1", "metrics.k8s.io": "v1beta1"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seconds", type=float, default=240.0)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    chosen = scenarios(_chart())
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work)
        with control_plane(folder, [f"--{name}={value}" for name, value in FLAGS.items()]) as api:
            recorder = Recorder(api, chosen)
            with recorder.serving(folder):
                recorder.run(arguments.seconds)
            for scenario in chosen:
                recorder.write(scenario, arguments.out)
    about = {"programs": programs(), "flags": FLAGS}
    (arguments.out / "controller.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")


def _chart() -> dict[str, Any]:
    """The spec of the autoscaler that the chart renders from its own values."""
    chart = Path(__file__).parents[2] / "helm" / "slipway"
    given = (
        "model.source.type=image,model.source.image.reference=r.example/m@sha256:" + "0" * 64,
        "model.digest=sha256:" + "0" * 64,
        "auth.apiKeys.existingSecret=keys,autoscaling.type=hpa",
    )
    command = ["helm", "template", "endpoint", str(chart), "--show-only", "templates/hpa.yaml"]
    command += [part for each in given for part in ("--set", each)]
    printed = subprocess.run(command, capture_output=True, text=True, check=False)
    if printed.returncode:
        raise SystemExit(printed.stderr)
    spec: dict[str, Any] = yaml.safe_load(printed.stdout)["spec"]
    return spec


class Recorder:
    """The metrics' API, the kubelet and the notebook of all scenarios."""

    def __init__(self, api: Api, chosen: list[Scenario]) -> None:
        self._api = api
        self._scenarios = {scenario.name: scenario for scenario in chosen}
        self._lines: dict[str, list[dict[str, Any]]] = {name: [] for name in self._scenarios}
        self._numbers: dict[str, dict[str, int]] = {name: {} for name in self._scenarios}
        self._lock = threading.Lock()
        self._over = False
        self._begin()

    def serving(self, folder: Path) -> "_Serving":
        """The metrics' API, registered with the API server."""
        server = _Serving(self.answer, folder)
        for group, version in _GROUPS.items():
            service = group.replace(".", "-")
            self._api.call(
                "POST",
                f"/api/v1/namespaces/{NAMESPACE}/services",
                {"metadata": {"name": service}, "spec": {"type": "ExternalName", "externalName": "localhost"}},
            )
            spec = {
                "group": group,
                "version": version,
                "insecureSkipTLSVerify": True,
                "groupPriorityMinimum": 100,
                "versionPriority": 100,
                "service": {"namespace": NAMESPACE, "name": service, "port": server.port},
            }
            self._api.call(
                "POST",
                "/apis/apiregistration.k8s.io/v1/apiservices",
                {"metadata": {"name": f"{version}.{group}"}, "spec": spec},
            )
        return server

    def run(self, seconds: float) -> None:
        """Make everything and play kubelet for so long."""
        for scenario in self._scenarios.values():
            self._deploy(scenario)
        self._keep_house(6.0)
        self._begin()
        for scenario in self._scenarios.values():
            self._api.call("POST", f"{_group(self._api)}/horizontalpodautoscalers", self.manifest(scenario))
        self._keep_house(seconds)
        with self._lock:
            self._over = True
        if abs((time.time() - self._begun_s) - (time.monotonic() - self._begun_monotonic_s)) > _CLOCKS_APART_S:
            raise SystemExit("the machine was stopped meanwhile, so that its clocks disagree; record again")

    def _begin(self) -> None:
        # The controller counts windows by a clock that stands still with the machine, the times of pods by the other.
        self._begun_s, self._begun_monotonic_s = time.time(), time.monotonic()

    def write(self, scenario: Scenario, out: Path) -> None:
        """The manifest and the trace of `scenario`; the last line has no decision, as nobody asked afterwards."""
        manifest = {"apiVersion": "autoscaling/v2", **self.manifest(scenario)}
        (out / f"{scenario.name}.yaml").write_text(yaml.safe_dump(manifest, sort_keys=False), encoding="utf-8")
        lines = self._lines[scenario.name]
        for line, after in itertools.pairwise(lines):
            line["desired"] = after["replicas"]
        text = "".join(json.dumps(line) + "\n" for line in lines[:-1])
        (out / f"{scenario.name}.jsonl").write_text(text, encoding="utf-8")

    def manifest(self, scenario: Scenario) -> dict[str, Any]:
        """The HPA of `scenario`."""
        target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": scenario.name}
        return {
            "kind": "HorizontalPodAutoscaler",
            "metadata": {"name": scenario.name},
            "spec": {**scenario.spec, "scaleTargetRef": target},
        }

    def _deploy(self, scenario: Scenario) -> None:
        container: dict[str, Any] = {"name": "main", "image": "none"}
        if scenario.request:
            container["resources"] = {"requests": {"cpu": scenario.request}}
        labels = {"app": scenario.name}
        spec = {
            "replicas": scenario.replicas,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
        }
        body = {"metadata": {"name": scenario.name}, "spec": spec}
        self._api.call("POST", f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments", body)

    def _keep_house(self, seconds: float) -> None:
        """Bind pods, let them run, become ready and, after their time, go."""
        until = time.time() + seconds
        while time.time() < until:
            for pod in self._pods():
                scenario = self._scenarios[pod["metadata"]["labels"]["app"]]
                try:
                    self._tend(scenario, pod)
                except RuntimeError as error:  # it has gone, or has just been changed
                    if " 404 " not in str(error) and " 409 " not in str(error):
                        raise
            time.sleep(0.25)

    def _tend(self, scenario: Scenario, pod: Mapping[str, Any]) -> None:
        name, number = pod["metadata"]["name"], self._number(scenario.name, pod)
        path, now = f"/api/v1/namespaces/{NAMESPACE}/pods/{name}", time.time()
        age = now - _time(pod["metadata"]["creationTimestamp"])
        if "deletionTimestamp" in pod["metadata"]:
            grace = pod["metadata"].get("deletionGracePeriodSeconds", 30)
            if now - (_time(pod["metadata"]["deletionTimestamp"]) - grace) >= scenario.leaving_s:
                self._api.call("DELETE", path, {"gracePeriodSeconds": 0})
        elif not pod["spec"].get("nodeName"):
            target = {"apiVersion": "v1", "kind": "Node", "name": "nowhere"}
            self._api.call("POST", f"{path}/binding", {"metadata": {"name": name}, "target": target})
        elif pod["status"]["phase"] == "Pending" and age >= scenario.pending_s:
            self._set_status(path, ready=False, start=_stamp(now))
        elif pod["status"]["phase"] == "Running" and not _is_ready(pod) and number not in scenario.starts_badly:
            start = pod["status"]["startTime"]
            if now - _time(start) >= scenario.starting_s:
                self._set_status(path, ready=True, start=start)

    def _set_status(self, path: str, *, ready: bool, start: str) -> None:
        condition = {"type": "Ready", "status": str(ready), "lastTransitionTime": _stamp(time.time())}
        self._api.patch(
            f"{path}/status", {"status": {"phase": "Running", "startTime": start, "conditions": [condition]}}
        )

    def _pods(self, scenario: str | None = None) -> list[dict[str, Any]]:
        selector = f"?labelSelector=app%3D{scenario}" if scenario else "?labelSelector=app"
        found: list[dict[str, Any]] = self._api.call("GET", f"/api/v1/namespaces/{NAMESPACE}/pods{selector}")["items"]
        return found

    def _number(self, scenario: str, pod: Mapping[str, Any]) -> int:
        numbers = self._numbers[scenario]
        return numbers.setdefault(pod["metadata"]["name"], len(numbers))

    def answer(self, path: str, query: str) -> dict[str, Any] | None:
        """What the metrics' API says to a request of the controller; None for what can't be had."""
        parts = path.strip("/").split("/")  # apis, group, version, namespaces, default, …
        if len(parts) < 4:
            return _discovery(parts)
        selected = parse_qs(query).get("labelSelector", [""])[0].removeprefix("app=")
        scenario = self._scenarios.get(selected)
        if parts[1] == "external.metrics.k8s.io":
            metric = parts[-1]
            # Nothing in the question says whose it is, so external metrics have names of their own.
            scenario = next(each for each in self._scenarios.values() if metric in each.signals and _is_external(each))
        assert scenario is not None
        metric = "cpu" if parts[1] == "metrics.k8s.io" else parts[-1]
        with self._lock:
            return None if self._over else self._look(scenario, metric, parts[1])

    def _look(self, scenario: Scenario, metric: str, group: str) -> dict[str, Any] | None:
        now, signal = time.time(), scenario.signals[metric]
        at = time.monotonic() - self._begun_monotonic_s
        found = self._pods(scenario.name)
        pods = {pod["metadata"]["name"]: self._seen(scenario, pod, now) for pod in found}
        path = f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments/{scenario.name}"
        replicas = self._api.call("GET", path)["spec"]["replicas"]
        lines = self._lines[scenario.name]
        if not lines or metric in lines[-1]["metrics"]:
            lines.append(
                {
                    "at": round(at, 3),
                    "replicas": replicas,
                    "pods": [self._told(pod, pods[pod["metadata"]["name"]].number) for pod in found],
                    "metrics": {},
                }
            )
            if scenario.request:
                lines[-1]["requests"] = scenario.request
        stamp = _stamp(now)
        if signal.broken(at):
            lines[-1]["metrics"][metric] = None
            return None
        if group == "external.metrics.k8s.io":
            value = round(signal.load(at))
            lines[-1]["metrics"][metric] = f"{value}m"
            item = {"metricName": metric, "metricLabels": {}, "timestamp": stamp, "value": f"{value}m"}
            return {
                "kind": "ExternalMetricValueList",
                "apiVersion": f"{group}/v1beta1",
                "metadata": {},
                "items": [item],
            }
        values = signal.of_pods(at, pods)
        # The controller compares these times for CPU, and sees whole seconds of them.
        taken = {"at": round(_time(stamp) - self._begun_s, 3), "window": _WINDOW_S} if metric == "cpu" else None
        lines[-1]["metrics"][metric] = {
            _short(pods[name].number): {"value": f"{value}m", **taken} if taken else f"{value}m"
            for name, value in values.items()
        }
        if group == "metrics.k8s.io":
            usages = [
                {
                    "metadata": {"name": name, "namespace": NAMESPACE, "labels": {"app": scenario.name}},
                    "timestamp": stamp,
                    "window": f"{_WINDOW_S}s",
                    "containers": [{"name": "main", "usage": {"cpu": f"{value}m"}}],
                }
                for name, value in values.items()
            ]
            return {"kind": "PodMetricsList", "apiVersion": f"{group}/v1beta1", "metadata": {}, "items": usages}
        items = [
            {
                "describedObject": {"kind": "Pod", "namespace": NAMESPACE, "name": name, "apiVersion": "/v1"},
                "metricName": metric,
                "timestamp": stamp,
                "value": f"{value}m",
            }
            for name, value in values.items()
        ]
        return {"kind": "MetricValueList", "apiVersion": f"{group}/v1beta1", "metadata": {}, "items": items}

    def _seen(self, scenario: Scenario, pod: Mapping[str, Any], now: float) -> Seen:
        start = pod["status"].get("startTime")
        return Seen(self._number(scenario.name, pod), _is_ready(pod), now - _time(start) if start else -1.0)

    def _told(self, pod: Mapping[str, Any], number: int) -> dict[str, Any]:
        """A pod as a trace has it."""
        told: dict[str, Any] = {"name": _short(number)}
        if pod["status"]["phase"] != "Running":
            return {**told, "running": False, "ready": False}
        condition = next(each for each in pod["status"]["conditions"] if each["type"] == "Ready")
        told |= {
            "ready": condition["status"] == "True",
            "started": round(_time(pod["status"]["startTime"]) - self._begun_s, 3),
            "became_ready": round(_time(condition["lastTransitionTime"]) - self._begun_s, 3),
        }
        return told | ({"deleting": True} if "deletionTimestamp" in pod["metadata"] else {})


class _Serving:
    def __init__(self, answer: Any, folder: Path) -> None:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                split = urlsplit(self.path)
                found = answer(split.path, split.query)
                gone = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404}
                body = json.dumps(gone if found is None else found).encode()
                self.send_response(404 if found is None else 200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.socket = server_context(folder).wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever)

    def __enter__(self) -> "_Serving":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def _discovery(parts: list[str]) -> dict[str, Any]:
    group = parts[1] if len(parts) > 1 else ""
    if len(parts) == 3:
        return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": f"{group}/{parts[2]}", "resources": []}
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": []}


def _group(api: Api) -> str:
    """The newest API of autoscalers that the server has."""
    versions = api.call("GET", "/apis/autoscaling")["versions"]
    names = [version["version"] for version in versions]
    return f"/apis/autoscaling/{'v2' if 'v2' in names else 'v2beta2'}/namespaces/{NAMESPACE}"


def _short(number: int) -> str:
    """The name of a pod in a trace."""
    return f"p{number}"


def _is_external(scenario: Scenario) -> bool:
    return any(metric["type"] == "External" for metric in scenario.spec["metrics"])


def _is_ready(pod: Mapping[str, Any]) -> bool:
    return any(each["type"] == "Ready" and each["status"] == "True" for each in pod["status"].get("conditions", []))


def _time(stamp: str) -> float:
    return datetime.fromisoformat(stamp).timestamp()


def _stamp(seconds: float) -> str:
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


if __name__ == "__main__":
    main()
