"""Names that a release, its namespace and what it refers to may have."""

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.helm.cases import EVERYTHING, MINIMAL, SCALING, source
from tests.helm.rendering import CHART, Manifests, RefusedError, merged, of_kind, render_chart
from tests.helm.test_render import validate

pytestmark = [pytest.mark.integration]

LABEL = r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?"
"""What a Service may be called (RFC 1035)."""


def rendered(helm: Path, values: dict[str, Any], release: str = "reviews", namespace: str = "models") -> Manifests:
    return render_chart(helm, merged(MINIMAL, values), "--kube-version=1.34.0", release=release, namespace=namespace)


@pytest.mark.parametrize("release", ["reviews.v2", "a" * 53, "a" * 50 + "--b", "x" * 24 + "--" + "y" * 20, "slipway"])
def test_whatever_a_release_is_called_its_objects_have_names_that_are_allowed(release: str, helm: Path) -> None:
    manifests = rendered(helm, EVERYTHING, release)
    validate(manifests, "1.34")
    for manifest in manifests:
        name = manifest["metadata"]["name"]
        assert re.fullmatch(LABEL, name), (manifest["kind"], name)
        assert len(name) <= (52 if manifest["kind"] == "CronJob" else 63)


def test_a_name_that_no_service_may_have_is_refused(helm: Path) -> None:
    with pytest.raises(RefusedError, match="the release's name must begin with a letter"):
        rendered(helm, {}, "2-reviews")


@pytest.mark.parametrize(("release", "namespace"), [("true", "20261"), ("null", "1e3"), ("off", "null")])
def test_a_name_that_looks_like_something_else_stays_text(release: str, namespace: str, helm: Path) -> None:
    manifests = rendered(helm, EVERYTHING, release, namespace)
    validate(manifests, "1.34")
    for manifest in manifests:
        assert manifest["metadata"]["namespace"] == namespace
        assert manifest["metadata"]["labels"]["app.kubernetes.io/instance"] == release
    groups = of_kind(manifests, "PrometheusRule", f"{release}-slipway")["spec"]["groups"]
    for rule in (rule for group in groups for rule in group["rules"]):
        assert rule["labels"]["namespace"] == namespace


def test_names_in_values_stay_text(helm: Path) -> None:
    number = "42"
    values: dict[str, Any] = {
        "hardware": "nvidia-t4",
        "runtimeClassName": number,
        "image": {"pullSecrets": [number]},
        "priorityClassName": number,
        "serviceAccountName": number,
        "engineCache": {"type": "claim", "claimName": number},
        "auth": {
            "apiKeys": {"existingSecret": number, "key": number},
            "jwt": {"existingConfigMap": number, "issuer": "i", "audiences": [number]},
            "externalSecret": {"enabled": True, "storeName": number, "remoteKey": "team: reviews #1"},
        },
        "tls": {"type": "certManager", "secretName": number, "certManager": {"issuerName": number}},
        "capture": {"rate": 0.1, "claimName": number},
        "expose": "gateway",
        "hostnames": ["1.example.com"],
        "gateway": {
            "name": number, "namespace": number, "sectionName": number, "canary": {"service": number, "weight": 1},
        },
        "autoscaling": merged(SCALING["keda"], {"keda": {"authenticationRef": number}}),
        "loadtest": {
            "enabled": True, "existingSecret": number, "key": number, "resultsClaim": number,
            "tls": {"caSecret": number, "clientSecret": number},
        },
    }  # fmt: skip
    for model in ({"model": {"path": "a: b #c", "source": {"claim": {"name": number}}}}, source("s3")):
        manifests = rendered(helm, merged(values, model))
        validate(manifests, "1.34")
        remote = of_kind(manifests, "ExternalSecret", "reviews-slipway-keys")["spec"]["data"][0]
        assert remote == {"secretKey": number, "remoteRef": {"key": "team: reviews #1"}}


def test_a_label_that_the_pods_are_selected_by_is_not_for_others_to_set(helm: Path) -> None:
    with pytest.raises(RefusedError, match=r"podLabels can't have app\.kubernetes\.io/instance"):
        rendered(helm, {"podLabels": {"app.kubernetes.io/instance": "x"}})


def test_what_the_chart_writes_too_is_written_once(helm: Path) -> None:
    values = {
        "podAnnotations": {"checksum/config": "x", "note": 'two\nlines, "quoted"'},
        "observability": {
            "podMonitor": True,
            "dashboard": True,
            "labels": {"app.kubernetes.io/component": "monitoring"},
            "dashboardLabels": {"app.kubernetes.io/component": "grafana"},
        },
        "alerts": {"enabled": True},
    }
    manifests = rendered(helm, values)
    found = of_kind(manifests, "Deployment")["spec"]["template"]["metadata"]["annotations"]
    assert found["checksum/config"] != "x"
    assert found["note"] == 'two\nlines, "quoted"'
    for kind, name, label in (
        ("PodMonitor", "reviews-slipway", "monitoring"),
        ("PrometheusRule", "reviews-slipway", "monitoring"),
        ("ConfigMap", "reviews-slipway-dashboard", "grafana"),
    ):
        assert of_kind(manifests, kind, name)["metadata"]["labels"]["app.kubernetes.io/component"] == label


@pytest.mark.parametrize(
    ("values", "at"),
    [
        ({"podLabels": {"team": "data science"}}, "/podLabels/team"),
        ({"podLabels": {"team": "x" * 64}}, "/podLabels/team"),
        ({"podLabels": {"data science": "x"}}, "/podLabels"),
        ({"nodeSelector": {"pool": "a/b"}}, "/nodeSelector/pool"),
        ({"podAnnotations": {"a b": "x"}}, "/podAnnotations"),
        ({"observability": {"labels": {"release": "é"}}}, "/observability/labels/release"),
        ({"alerts": {"labels": {"my-team": "nlp"}}}, "/alerts/labels"),
        ({"model": {"source": {"objectStore": {"env": {"AWS REGION": "x"}}}}}, "/model/source/objectStore/env"),
    ],
)
def test_keys_and_labels_that_no_api_server_takes_are_refused(values: dict[str, Any], at: str, helm: Path) -> None:
    with pytest.raises(RefusedError, match=f"at '{at}'"):
        rendered(helm, values)


def test_a_chart_around_this_one_may_have_it_twice_and_leave_one_out(helm: Path, tmp_path: Path) -> None:
    around = tmp_path / "around"
    shutil.copytree(CHART, around / "charts" / "slipway")
    parts = ["reviews", "newsModel"]
    dependencies = [
        {"name": "slipway", "version": "0.1.0", "alias": part, "condition": f"{part}.enabled"} for part in parts
    ]
    about = {"apiVersion": "v2", "name": "around", "version": "1.0.0", "dependencies": dependencies}
    (around / "Chart.yaml").write_text(yaml.safe_dump(about), encoding="utf-8")

    def deployments(release: str, *enabled: str) -> dict[str, dict[str, str]]:
        values = {part: merged(MINIMAL, {"enabled": part in enabled}) for part in parts}
        manifests = render_chart(helm, values | {"global": {"team": "nlp"}}, chart=around, release=release)
        validate(manifests, "1.34")
        assert len({(each["kind"], each["metadata"]["name"]) for each in manifests}) == len(manifests)
        found = [each for each in manifests if each["kind"] == "Deployment"]
        return {each["metadata"]["name"]: each["spec"]["selector"]["matchLabels"] for each in found}

    assert set(deployments("acme", "reviews")) == {"acme-reviews"}
    for release in ("acme", "a" * 53):
        first, second = deployments(release, *parts).values()
        assert first != second, "each would have the other's pods"
