"""Values of load tests in the cluster, and what of the chart they make."""

from pathlib import Path
from typing import Any

from slipway.recipe import LoadTest, load_settings
from tests.helm.rendering import Manifests, render_chart

LEAST: dict[str, Any] = {
    "model": {"source": {"type": "claim", "claim": {"name": "models"}}, "path": "reviews/bundle"},
    "auth": {"apiKeys": {"existingSecret": "keys"}},
    "networkPolicy": {"enabled": True},
}
EVERYTHING: dict[str, Any] = {
    **LEAST,
    "loadtest": {
        "enabled": True,
        "workers": 3,
        "existingSecret": "loadtest-key",
        "resultsClaim": "verdicts",
        "capacity": {"enabled": True},
    },
}
MUTUAL: dict[str, Any] = {
    **EVERYTHING,
    "tls": {"type": "secret", "secretName": "server", "clientCaSecret": "callers"},
    "loadtest": {**EVERYTHING["loadtest"], "tls": {"clientSecret": "me"}},
}


def render(helm: Path, values: dict[str, Any], release: str = "reviews") -> Manifests:
    """The manifests of `values` alone. Raises `RefusedError`."""
    return render_chart(helm, values, "--kube-version=1.34.0", release=release, namespace="ml")


def is_loadtest(manifest: dict[str, Any]) -> bool:
    return bool(manifest["metadata"].get("labels", {}).get("app.kubernetes.io/component") == "loadtest")


def pods(manifests: Manifests) -> dict[str, dict[str, Any]]:
    """Role → metadata and spec of its pods."""
    found = {}
    for manifest in filter(is_loadtest, manifests):
        spec = manifest.get("spec", {})
        if manifest["kind"] == "CronJob":
            spec = spec["jobTemplate"]["spec"]
        template = manifest if manifest["kind"] == "Pod" else spec.get("template")
        if template is not None:
            found[template["metadata"]["labels"]["slipway/loadtest"]] = template
    return found


def container(pod: dict[str, Any]) -> dict[str, Any]:
    [only] = pod["spec"]["containers"]
    return dict(only)


def recipes(manifests: Manifests, folder: Path) -> dict[str, LoadTest]:
    """The ConfigMap's recipes, read by the loader that reads them in the pod."""
    [configuration] = [each for each in manifests if each["kind"] == "ConfigMap" and is_loadtest(each)]
    found = {}
    for name, text in configuration["data"].items():
        (folder / name).write_text(text, encoding="utf-8")
        found[name.removesuffix(".yaml")] = load_settings(folder / name).loadtest
    return found
