"""The chart, rendered by the real Helm: valid on every Kubernetes that is supported, and what it says it is."""

import json
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from slipway.recipe import load_settings
from slipway.recipe.sections import Settings
from tests.helm.cases import DIGEST, EVERYTHING, MATRIX, MINIMAL, REFUSED, SCALING, TLS, source
from tests.helm.rendering import CHART, Manifests, RefusedError, Render, endpoint_of, merged, of_kind

pytestmark = [pytest.mark.integration]

OLDEST, NEWEST = "1.29", "1.37"
VERSIONS = [f"1.{minor}" for minor in range(29, 38)]
CRDS = {
    file.stem: json.loads(file.read_text(encoding="utf-8")) for file in (Path(__file__).parent / "crds").glob("*.json")
}
"""Schemas of custom resources by their kind, in small letters."""


def validate(manifests: Manifests, version: str) -> None:
    """Raise if a manifest has a field that this Kubernetes, or the resource's own schema, doesn't know."""
    for manifest in manifests:
        if manifest["kind"].lower() in CRDS:
            jsonschema.validate(manifest, CRDS[manifest["kind"].lower()])
        else:
            kubernetes_validate.validate(manifest, version, strict=True)


def pod(manifests: Manifests) -> dict[str, Any]:
    found: dict[str, Any] = of_kind(manifests, "Deployment")["spec"]["template"]["spec"]
    return found


def settings(manifests: Manifests, tmp_path: Path) -> Settings:
    """What the endpoint reads."""
    file = tmp_path / "serve.yaml"
    file.write_text(of_kind(manifests, "ConfigMap")["data"]["serve.yaml"], encoding="utf-8")
    found = load_settings(file)
    assert isinstance(found, Settings)
    return found


@pytest.mark.parametrize("name", MATRIX)
def test_what_is_rendered_is_valid_on_the_oldest_and_the_newest(name: str, render: Render) -> None:
    # An image volume is refused before 1.31, and unknown to the schemas before.
    images = MATRIX[name].get("model", {}).get("source", {}).get("type") == "image"
    for version in ("1.31" if images else OLDEST, NEWEST):
        manifests = render(MATRIX[name], f"{version}.0")
        validate(manifests, version)
        assert len({(each["kind"], each["metadata"]["name"]) for each in manifests}) == len(manifests)


@pytest.mark.parametrize("version", VERSIONS)
def test_what_is_rendered_is_valid_on_every_version(version: str, render: Render) -> None:
    for values in (MINIMAL, merged(EVERYTHING, source("s3"))):
        validate(render(values, f"{version}.0"), version)


@pytest.mark.parametrize("name", MATRIX)
def test_the_endpoint_can_read_its_settings(name: str, render: Render, tmp_path: Path) -> None:
    serve = settings(render(MATRIX[name]), tmp_path).serve
    assert (serve.host, serve.port, serve.observe.metrics_port) == ("0.0.0.0", 8080, 9090)  # noqa: S104
    assert serve.auth.is_on
    assert serve.auth.keyless == "never"


@pytest.mark.parametrize("name", REFUSED)
def test_what_can_not_work_is_refused_with_a_sentence(name: str, render: Render) -> None:
    values, sentence = REFUSED[name]
    with pytest.raises(RefusedError, match=r"(?s).+") as caught:
        render(values)
    assert sentence in str(caught.value)


def test_every_sentence_is_said_at_once(helm: Path) -> None:
    run = subprocess.run([str(helm), "template", "x", str(CHART)], capture_output=True, text=True, check=False)
    assert "model.source.type is needed" in run.stderr
    assert "never without credentials" in run.stderr


def test_an_image_volume_needs_a_kubernetes_that_has_them(render: Render) -> None:
    with pytest.raises(RefusedError, match=r"needs Kubernetes 1\.31 with image volumes; this is v1\.30\.0"):
        render(source("image"), "1.30.0")


@pytest.mark.parametrize("values", [{}, EVERYTHING], ids=["minimal", "everything"])
def test_helm_finds_nothing_to_say(values: dict[str, Any], helm: Path, tmp_path: Path) -> None:
    file = tmp_path / "values.yaml"
    file.write_text(yaml.safe_dump(merged(MINIMAL, values)), encoding="utf-8")
    command = [str(helm), "lint", "--strict", str(CHART), "--kube-version", "1.34.0", "-f", str(file)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout
    assert "[WARNING]" not in run.stdout


def test_the_chart_can_be_packaged_and_rendered_from_its_package(helm: Path, tmp_path: Path) -> None:
    subprocess.run([str(helm), "package", str(CHART), "--destination", str(tmp_path)], check=True, capture_output=True)
    [package] = tmp_path.glob("slipway-*.tgz")
    file = tmp_path / "values.yaml"
    file.write_text(yaml.safe_dump(merged(MINIMAL, {"hardware": "nvidia-t4"})), encoding="utf-8")
    command = [str(helm), "template", "x", str(package), "-f", str(file)]
    rendered = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "nvidia.com/gpu" in rendered


def test_the_notes_hold_no_secret_and_say_where_it_is(helm: Path, tmp_path: Path) -> None:
    notes = notes_of(helm, merged(MINIMAL, EVERYTHING), tmp_path)
    assert "https://reviews-slipway.models.svc:443" in notes
    assert "3 to 40 replicas (hpa)" in notes


def test_the_notes_say_what_the_test_still_needs(helm: Path, tmp_path: Path) -> None:
    mutual: dict[str, Any] = merged(MINIMAL, {"tls": TLS["mutual"]})
    assert "loadtest.existingSecret" in notes_of(helm, MINIMAL, tmp_path)
    assert "loadtest.tls.clientSecret" in notes_of(helm, mutual, tmp_path)
    given = {"existingSecret": "key", "tls": {"clientSecret": "certificate"}}
    notes = notes_of(helm, merged(mutual, {"loadtest": given}), tmp_path)
    assert "helm test reviews" in notes
    assert "loadtest." not in notes


def notes_of(helm: Path, values: dict[str, Any], folder: Path) -> str:
    file = folder / "values.yaml"
    file.write_text(yaml.safe_dump(values), encoding="utf-8")
    command = [str(helm), "install", "reviews", str(CHART), "--dry-run=client", "-n", "models", "-f", str(file)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return run.stdout.partition("NOTES:")[2]


def test_a_gpu_is_asked_for_by_its_name_and_a_slice_by_its_profile(render: Render) -> None:
    whole, part = render({"hardware": "nvidia-a100"}), render({"hardware": "mig-1g.10gb"})
    assert endpoint_of(whole)["resources"]["limits"]["nvidia.com/gpu"] == 1
    [term] = pod(whole)["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"][
        "nodeSelectorTerms"
    ]
    assert "NVIDIA-A100-SXM4-80GB" in term["matchExpressions"][0]["values"]
    assert endpoint_of(part)["resources"]["limits"]["nvidia.com/mig-1g.10gb"] == 1
    assert "nvidia.com/gpu" not in endpoint_of(part)["resources"]["limits"]
    assert pod(whole)["runtimeClassName"] == "nvidia"


def test_whatever_hardware_says_can_be_overridden(render: Render) -> None:
    manifests = render(
        {
            "hardware": "nvidia-t4",
            "resources": {"limits": {"nvidia.com/gpu": 2}},
            "nodeSelector": {"pool": "gpus"},
            "tolerations": [],
            "runtimeClassName": "",
            "affinity": {},
            "image": {"repository": "mine/serve", "tag": "7"},
        }
    )
    assert endpoint_of(manifests)["resources"] == {"limits": {"nvidia.com/gpu": 2}}
    assert pod(manifests)["nodeSelector"] == {"pool": "gpus"}
    assert not {"tolerations", "runtimeClassName", "affinity"} & set(pod(manifests))
    assert endpoint_of(manifests)["image"] == "mine/serve:7"


def test_a_digest_goes_before_a_tag(render: Render) -> None:
    image = {"repository": "mine/serve", "tag": "7", "digest": DIGEST}
    assert endpoint_of(render({"image": image}))["image"] == f"mine/serve@{DIGEST}"


def test_a_gpu_gets_its_configuration_its_layout_and_a_place_for_engines(render: Render, tmp_path: Path) -> None:
    manifests = render({"hardware": "nvidia-l4", "instances": 3})
    serve = settings(manifests, tmp_path).serve
    assert (serve.target, serve.layout, serve.gpu.instances) == ("gpu", "ensemble", 3)
    [cache] = [mount for mount in endpoint_of(manifests)["volumeMounts"] if mount["name"] == "engine-cache"]
    assert cache["mountPath"] == serve.gpu.engine_cache


def test_what_a_recipe_says_reaches_the_endpoint_and_can_not_open_it(render: Render, tmp_path: Path) -> None:
    values = {"serve": {"long_text": "window", "limits": {"rate": 100}}, "slo": {"latencyMs": 40}}
    serve = settings(render(values), tmp_path).serve
    assert (serve.long_text, serve.limits.rate, serve.limits.slo_ms) == ("window", 100, 40)


@pytest.mark.parametrize("grace", [None, 0.5, 45])
def test_a_pod_has_time_to_drain(grace: float | None, render: Render, tmp_path: Path) -> None:
    manifests = render({"drainSeconds": 7} | ({} if grace is None else {"serve": {"grace_s": grace}}))
    serve = settings(manifests, tmp_path).serve
    stop = endpoint_of(manifests)["lifecycle"]["preStop"]["exec"]["command"]
    assert stop == ["sleep", "7"]
    # 15 s is what ending may take beyond the grace time (`serving.server.endpoint`).
    assert pod(manifests)["terminationGracePeriodSeconds"] >= 7 + serve.grace_s + 15


def test_probes_ask_for_a_real_inference_where_no_certificate_is_needed(render: Render) -> None:
    container = endpoint_of(render({"tls": TLS["mutual"]}))
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"] == {"path": "/healthz", "port": "metrics"}
    startup = container["startupProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] >= 600


def test_another_configuration_makes_other_pods_and_the_same_makes_the_same(render: Render) -> None:
    def checksums(values: dict[str, Any]) -> dict[str, str]:
        found: dict[str, str] = of_kind(render(values), "Deployment")["spec"]["template"]["metadata"]["annotations"]
        return found

    assert checksums({}) == checksums({"service": {"type": "NodePort"}})
    assert checksums({}) != checksums({"serve": {"max_queue": 8}})
    assert checksums({}) != checksums({"auth": {"apiKeys": {"existingSecret": "others"}}})


def test_nothing_of_a_pod_changes_its_selector(render: Render) -> None:
    plain, full = (of_kind(render(values), "Deployment")["spec"] for values in ({}, {"podLabels": {"a": "b"}}))
    assert plain["selector"] == full["selector"]
    assert full["selector"]["matchLabels"].items() <= full["template"]["metadata"]["labels"].items()


def test_the_pods_hold_the_restricted_standard(render: Render) -> None:
    for name in ("everything", "source s3", "load tests"):
        for manifest in render(MATRIX[name]):
            for template in pod_specs(manifest):
                context = template["securityContext"]
                assert context["runAsNonRoot"] is True
                assert context["seccompProfile"] == {"type": "RuntimeDefault"}
                assert template["automountServiceAccountToken"] is False
                assert not {"hostNetwork", "hostPID", "hostIPC"} & set(template)
                for container in template["containers"] + template.get("initContainers", []):
                    own = container["securityContext"]
                    assert own["allowPrivilegeEscalation"] is False
                    assert own["readOnlyRootFilesystem"] is True
                    assert own["capabilities"] == {"drop": ["ALL"]}
                    assert {"requests", "limits"} <= set(container["resources"])
                assert not any("hostPath" in volume for volume in template.get("volumes", []))


def pod_specs(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    """The pod of a manifest, wherever it is; none in most."""
    spec = manifest.get("spec", {})
    if manifest["kind"] == "Pod":
        return [spec]
    if manifest["kind"] == "CronJob":
        return [spec["jobTemplate"]["spec"]["template"]["spec"]]
    if manifest["kind"] in ("Deployment", "Job", "StatefulSet"):
        return [spec["template"]["spec"]]
    return []


def test_no_secret_is_written(render: Render) -> None:
    for values in MATRIX.values():
        assert not [each for each in render(values) if each["kind"] == "Secret"]


def test_a_store_is_fetched_from_by_digest_and_may_be_reached(render: Render) -> None:
    manifests = render(source("s3"))
    [fetch] = pod(manifests)["initContainers"]
    assert fetch["args"] == [
        "fetch", "s3://models/reviews/bundle", "/models/artifact", "--digest", DIGEST,
    ]  # fmt: skip
    assert {"name": "AWS_REGION", "value": "eu-west-1"} in fetch["env"]
    assert fetch["envFrom"] == [{"secretRef": {"name": "store"}}]
    assert endpoint_of(manifests)["args"][:2] == ["serve", "/models/artifact"]
    ports = [rule["ports"] for rule in of_kind(manifests, "NetworkPolicy")["spec"]["egress"]]
    assert [{"port": 9000, "protocol": "TCP"}] in ports


def test_a_number_in_a_stores_settings_is_written_out(render: Render) -> None:
    env = {"ACCOUNT": 123456789012, "TIMEOUT": 2.5, "SKIP": True}
    [fetch] = pod(render(merged(source("s3"), {"model": {"source": {"objectStore": {"env": env}}}})))["initContainers"]
    found = {each["name"]: each["value"] for each in fetch["env"]}
    assert (found["ACCOUNT"], found["TIMEOUT"], found["SKIP"]) == ("123456789012", "2.5", "true")


@pytest.mark.parametrize(
    ("url", "port"),
    [("s3://a/b", 443), ("gs://a/b", 443), ("https://h/b", 443), ("http://h:8000/b", 8000), ("http://h/b", 80)],
)
def test_the_ways_to_a_store_are_open_by_its_scheme(url: str, port: int, render: Render) -> None:
    values = merged(source("s3"), {"model": {"source": {"objectStore": {"url": url, "env": None}}}})
    values["model"]["source"]["objectStore"]["env"] = {}
    manifests = render(values)
    ports = [rule["ports"] for rule in of_kind(manifests, "NetworkPolicy")["spec"]["egress"]]
    assert [{"port": port, "protocol": "TCP"}] in ports


def test_the_autoscaler_has_a_signal_for_each_target_and_room_for_the_pods_start(render: Render) -> None:
    spec = of_kind(render({"autoscaling": SCALING["hpa"]}), "HorizontalPodAutoscaler")["spec"]
    targets = {each["pods"]["metric"]["name"]: each["pods"]["target"]["averageValue"] for each in spec["metrics"]}
    assert targets == {"slipway_busy_instances": "1400m", "slipway_in_flight": "4000m"}
    assert spec["behavior"]["scaleDown"]["stabilizationWindowSeconds"] == 300


def test_the_targets_follow_the_instances(render: Render) -> None:
    spec = of_kind(render({"autoscaling": SCALING["hpa"], "instances": 5}), "HorizontalPodAutoscaler")["spec"]
    targets = [each["pods"]["target"]["averageValue"] for each in spec["metrics"]]
    assert targets == ["3500m", "10000m"]


def test_on_a_gpu_its_duty_stands_for_busy_instances(render: Render) -> None:
    spec = of_kind(render({"autoscaling": SCALING["hpa"], "hardware": "nvidia-l4"}), "HorizontalPodAutoscaler")["spec"]
    targets = {each["pods"]["metric"]["name"]: each["pods"]["target"]["averageValue"] for each in spec["metrics"]}
    assert targets == {"slipway_gpu_duty": "700m", "slipway_in_flight": "32000m"}


@pytest.mark.parametrize(
    ("scaling", "kind", "within"),
    [
        ("hpa", "HorizontalPodAutoscaler", ()),
        ("keda", "ScaledObject", ("advanced", "horizontalPodAutoscalerConfig")),
    ],
)
def test_a_tolerance_is_a_quantity_of_kubernetes_that_know_it(
    scaling: str, kind: str, within: tuple[str, ...], render: Render
) -> None:
    values = {"autoscaling": SCALING[scaling] | {"behavior": {"scaleUp": {"tolerance": 0.05}}}}
    spec = of_kind(render(values), kind)["spec"]
    for key in within:
        spec = spec[key]
    assert spec["behavior"]["scaleUp"]["tolerance"] == "0.05"
    with pytest.raises(RefusedError, match=r"scaleUp\.tolerance needs Kubernetes 1\.33"):
        render(values, "1.32.0")


def test_who_scales_owns_the_replicas(render: Render) -> None:
    assert of_kind(render(), "Deployment")["spec"]["replicas"] == 2
    for scaling in ("hpa", "keda"):
        assert "replicas" not in of_kind(render({"autoscaling": SCALING[scaling]}), "Deployment")["spec"]


def test_an_upgrade_may_go_from_one_autoscaler_to_the_other(render: Render) -> None:
    by_hpa, by_keda = (render({"autoscaling": SCALING[scaling]}) for scaling in ("hpa", "keda"))
    # Helm makes what is new before it takes away what is old: KEDA's admission must not mind the chart's autoscaler,
    # and the chart's must not have the name of the one that KEDA made, which Helm can't take over.
    annotations = of_kind(by_hpa, "HorizontalPodAutoscaler")["metadata"]["annotations"]
    assert annotations["validations.keda.sh/hpa-ownership"] == "false"
    assert "name" not in of_kind(by_keda, "ScaledObject")["spec"]["advanced"]["horizontalPodAutoscalerConfig"]


def test_keda_wakes_the_first_replica_by_the_gateways_traffic(render: Render) -> None:
    spec = of_kind(render({"autoscaling": SCALING["keda-zero"]}), "ScaledObject")["spec"]
    assert spec["minReplicaCount"] == 0
    [wake] = [each for each in spec["triggers"] if each["name"] == "activation"]
    assert "gateway_requests_total" in wake["metadata"]["query"]
    assert {each["metadata"]["ignoreNullValues"] for each in spec["triggers"]} == {"true"}


@pytest.mark.parametrize("hardware", ["cpu", "nvidia-l4"])
def test_health_checks_alone_do_not_keep_keda_from_zero(hardware: str, render: Render) -> None:
    values = {"hardware": hardware, "autoscaling": SCALING["keda-zero"]}
    triggers = {each["name"]: each["metadata"] for each in of_kind(render(values), "ScaledObject")["spec"]["triggers"]}
    # What a pod without callers is busy with. Above its activation threshold, 0 unless told, a trigger keeps it.
    [working] = {"busyInstances", "gpuDuty"} & set(triggers)
    assert float(triggers[working]["activationThreshold"]) == float(triggers[working]["threshold"])
    assert "activationThreshold" not in triggers["inFlight"]
    assert triggers["activation"]["activationThreshold"] == "0"


def test_keda_keeps_what_is_there_while_prometheus_is_silent(render: Render) -> None:
    spec = of_kind(render({"autoscaling": SCALING["keda"]}), "ScaledObject")["spec"]
    assert {each["metadata"]["ignoreNullValues"] for each in spec["triggers"]} == {"false"}
    assert [each["metadata"]["threshold"] for each in spec["triggers"]] == ["1.4", "4"]


def test_a_canary_gets_its_share_over_both_protocols(render: Render) -> None:
    from tests.helm.cases import EXPOSED

    manifests = render(EXPOSED["canary"])
    for kind in ("HTTPRoute", "GRPCRoute"):
        [rule] = of_kind(manifests, kind)["spec"]["rules"]
        assert {each["name"]: each["weight"] for each in rule["backendRefs"]} == {
            "reviews-slipway": 90,
            "reviews-next": 10,
        }


@pytest.mark.parametrize(("grpc", "more"), [(True, {"/inference.GRPCInferenceService"}), (False, set())])
def test_only_the_models_paths_are_routed(grpc: bool, more: set[str], render: Render) -> None:
    from tests.helm.cases import EXPOSED

    manifests = render(merged(EXPOSED["gateway"], {"gateway": {"grpc": grpc}}))
    [rule] = of_kind(manifests, "HTTPRoute")["spec"]["rules"]
    assert {match["path"]["value"] for match in rule["matches"]} == {"/v2", "/openapi.json"} | more


def test_no_name_has_two_kinds_of_routes_of_which_a_gateway_takes_one(render: Render) -> None:
    from tests.helm.cases import EXPOSED

    assert not [each for each in render(EXPOSED["gateway"]) if each["kind"] == "GRPCRoute"]
    manifests = render(EXPOSED["canary"])
    http, grpc = (set(of_kind(manifests, kind)["spec"]["hostnames"]) for kind in ("HTTPRoute", "GRPCRoute"))
    assert grpc == {"grpc.example.com"}
    assert not http & grpc


def test_nobody_may_call_who_is_not_listed(render: Render) -> None:
    policy = of_kind(render({"networkPolicy": {"metricsFrom": []}}), "NetworkPolicy")["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    [rule] = policy["ingress"]
    [caller] = rule["from"]
    assert caller["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == "loadtest"
    [dns] = policy["egress"]
    assert {port["port"] for port in dns["ports"]} == {53}


def test_the_collector_of_traces_may_be_reached(render: Render) -> None:
    values = {"observability": {"otlp": "http://otel.monitoring:4318"}}
    ports = [rule["ports"] for rule in of_kind(render(values), "NetworkPolicy")["spec"]["egress"]]
    assert [{"port": 4318, "protocol": "TCP"}] in ports


def test_one_replica_has_no_budget_that_would_keep_its_node(render: Render) -> None:
    assert not [each for each in render({"replicas": 1}) if each["kind"] == "PodDisruptionBudget"]
    budget = of_kind(render({"maxUnavailable": "25%"}), "PodDisruptionBudget")["spec"]
    assert budget["maxUnavailable"] == "25%"
