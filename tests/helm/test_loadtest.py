"""Load tests in the cluster: what is rendered."""

import functools
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from slipway.cli_loadtest import loadtest
from tests.helm.loadtest_values import EVERYTHING, LEAST, MUTUAL, container, is_loadtest, pods, recipes, render
from tests.helm.rendering import CHART, Manifests, RefusedError, render_chart

pytestmark = pytest.mark.unit

Rendered = Callable[..., Manifests]


@pytest.fixture(scope="session")
def rendered(helm: Path) -> Rendered:
    return functools.partial(render, helm)


def selected(by: dict[str, str], pod: dict[str, Any]) -> bool:
    return by.items() <= pod["metadata"]["labels"].items()


def test_the_command_line_takes_every_command(rendered: Rendered) -> None:
    found = pods(rendered(EVERYTHING))
    assert set(found) == {"run-master", "run-worker", "capacity-master", "capacity-worker", "test"}
    for role, pod in found.items():
        command = container(pod)
        assert "command" not in command, "the image's entry point has an init"
        group, name, *arguments = command["args"]
        assert group == "loadtest"
        taken = loadtest.commands[name].make_context(name, arguments).params
        assert taken["allow_remote"] is True
        assert taken["wait_s"] == 600
        assert taken.get("seek_capacity", False) is (role == "capacity-master")
        if role != "test":
            assert taken["master"].endswith(":5557")
    assert "--once" in container(found["run-worker"])["args"]


def test_recipes_say_what_the_values_say(rendered: Rendered, tmp_path: Path) -> None:
    values = {
        **EVERYTHING,
        "slo": {"latencyMs": 80, "latencyPercent": 95, "availabilityPercent": 99.95},
        "loadtest": {
            **EVERYTHING["loadtest"],
            "recipe": {
                "rate": 150,
                "duration_s": 90,
                "arrivals": {"process": "ramp", "end": 2},
                "batch_size": {1: 9, 8: 1},
                "capacity": {"time_budget_s": 900},
            },
            "test": {"rate": 7, "durationSeconds": 12},
        },
    }
    found = recipes(rendered(values), tmp_path)
    run, test = found["run"], found["test"]
    assert (run.rate, run.duration_s, run.workers, run.arrivals.process) == (150, 90, 3, "ramp")
    assert found["capacity"] == run
    # A short check is steady and of one process, whatever the long one is.
    assert (test.rate, test.duration_s, test.workers, test.arrivals.process) == (7, 12, 1, "poisson")
    assert test.batch_sizes == run.batch_sizes
    for section in (run, test):
        assert section.slo.goodput == 0.95
        assert section.slo.goodput_ms == 80
        assert section.slo.error_rate == 0.0005
        assert section.credentials is not None
        assert section.credentials.environment == "SLIPWAY_LOADTEST_KEY"


def test_an_objective_of_ones_own_holds_for_the_run_and_the_promise_for_the_test(
    rendered: Rendered, tmp_path: Path
) -> None:
    load = {**EVERYTHING["loadtest"], "recipe": {"slo": {"p99_ms": 40}, "credentials": {"kind": "bearer"}}}
    found = recipes(rendered({**EVERYTHING, "loadtest": load}), tmp_path)
    assert found["run"].slo.p99_ms == 40
    assert found["run"].slo.goodput is None
    assert found["test"].slo.p99_ms is None
    assert found["test"].slo.goodput_ms == 100
    assert all(each.credentials is not None and each.credentials.kind == "bearer" for each in found.values())


@pytest.mark.parametrize("values", [EVERYTHING, MUTUAL], ids=["plain", "mutual TLS"])
def test_pods_hold_the_restricted_standard(rendered: Rendered, values: dict[str, Any]) -> None:
    for pod in pods(rendered(values)).values():
        spec = pod["spec"]
        assert spec["automountServiceAccountToken"] is False
        assert spec["restartPolicy"] == "Never"
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for each in [*spec.get("initContainers", []), *spec["containers"]]:
            rights = each["securityContext"]
            assert rights["allowPrivilegeEscalation"] is False
            assert rights["readOnlyRootFilesystem"] is True
            assert rights["capabilities"] == {"drop": ["ALL"]}
            assert set(each["resources"]) == {"requests", "limits"}
        # The root is read-only: whatever is written must have a volume.
        mounts = {mount["mountPath"] for mount in container(pod)["volumeMounts"]}
        assert "/tmp" in mounts  # noqa: S108
        volumes = {volume["name"] for volume in spec["volumes"]}
        assert {mount["name"] for mount in container(pod)["volumeMounts"]} == volumes


def test_jobs_end_and_are_not_repeated(rendered: Rendered) -> None:
    manifests = rendered(EVERYTHING)
    jobs = [each["spec"] for each in manifests if each["kind"] == "Job"]
    nightly = [each["spec"] for each in manifests if each["kind"] == "CronJob"]
    assert len(jobs) == len(nightly) == 2
    for each in nightly:
        assert each["concurrencyPolicy"] == "Forbid"
        assert each["schedule"] == "0 3 * * *"
    for job in [*jobs, *(each["jobTemplate"]["spec"] for each in nightly)]:
        assert job["backoffLimit"] == 0
        assert job["activeDeadlineSeconds"] >= 600 + 60
        assert job["ttlSecondsAfterFinished"] > 0
    assert sorted(job.get("completions", 1) for job in jobs) == [1, 3]


def test_workers_find_their_master_and_nobody_else(rendered: Rendered) -> None:
    manifests = rendered(EVERYTHING)
    found = pods(manifests)
    services = {each["metadata"]["name"]: each["spec"] for each in manifests if each["kind"] == "Service"}
    for kind in ("run", "capacity"):
        [master] = [argument for argument in container(found[f"{kind}-worker"])["args"] if "--master" in argument]
        name, namespace, rest = master.removeprefix("--master=").split(".")
        assert (namespace, rest) == ("ml", "svc:5557")
        matched = {role for role, pod in found.items() if selected(services[name]["selector"], pod)}
        assert matched == {f"{kind}-master"}
        [port] = services[name]["ports"]
        assert port["port"] == 5557
        assert {each["name"]: each["containerPort"] for each in container(found[f"{kind}-master"])["ports"]} == {
            port["targetPort"]: 5557
        }


def test_network_policies_let_load_to_the_endpoint_and_nothing_else_out(rendered: Rendered) -> None:
    manifests = rendered(EVERYTHING)
    found = pods(manifests)
    policies = [each["spec"] for each in manifests if each["kind"] == "NetworkPolicy"]
    [own] = [policy for policy in policies if selected(policy["podSelector"]["matchLabels"], found["test"])]
    assert set(own["policyTypes"]) == {"Ingress", "Egress"}
    [ingress] = own["ingress"]
    assert [port["port"] for port in ingress["ports"]] == [5557]
    [peer] = ingress["from"]
    [deployment] = [each for each in manifests if each["kind"] == "Deployment"]
    endpoint = deployment["spec"]["template"]
    assert all(selected(peer["podSelector"]["matchLabels"], pod) for pod in found.values())
    assert not selected(peer["podSelector"]["matchLabels"], endpoint)
    # Every way out but DNS names its pods.
    ways = {rule["ports"][0]["port"]: rule["to"] for rule in own["egress"]}
    assert set(ways) == {53, 8080, 5557}
    assert selected(ways[8080][0]["podSelector"]["matchLabels"], endpoint)
    [theirs] = [policy for policy in policies if selected(policy["podSelector"]["matchLabels"], endpoint)]
    callers = [
        caller["podSelector"]["matchLabels"]
        for rule in theirs["ingress"]
        for caller in rule["from"]
        if "podSelector" in caller
    ]
    assert all(any(selected(caller, pod) for caller in callers) for pod in found.values())


def test_with_tls_the_authority_is_trusted_and_the_servers_key_stays_with_the_server(
    rendered: Rendered, tmp_path: Path
) -> None:
    manifests = rendered(MUTUAL)
    for role, pod in pods(manifests).items():
        secrets = {volume["name"]: volume["secret"] for volume in pod["spec"]["volumes"] if "secret" in volume}
        assert secrets["ca"]["secretName"] == "server"
        assert [item["key"] for item in secrets["ca"]["items"]] == ["ca.crt"]
        assert secrets["client"]["secretName"] == "me"
        if not role.endswith("worker"):
            assert "--address=https://reviews-slipway.ml.svc:8080" in container(pod)["args"]
    for section in recipes(manifests, tmp_path).values():
        assert section.tls.ca == "/etc/slipway/ca/ca.crt"
        assert section.tls.certificate == "/etc/slipway/client/tls.crt"
        assert section.tls.key == "/etc/slipway/client/tls.key"


def test_an_authority_that_everybody_trusts_is_not_mounted(rendered: Rendered, tmp_path: Path) -> None:
    tls = {"clientSecret": "me", "caSecret": ""}
    load = {**EVERYTHING["loadtest"], "tls": tls, "recipe": {"tls": {"server_name": "predict.example.com"}}}
    manifests = rendered({**MUTUAL, "loadtest": load})
    assert all("ca" not in {volume["name"] for volume in pod["spec"]["volumes"]} for pod in pods(manifests).values())
    for section in recipes(manifests, tmp_path).values():
        assert section.tls.ca is None
        assert section.tls.server_name == "predict.example.com"


@pytest.mark.parametrize(
    ("source", "path", "model"),
    [
        ({"type": "claim", "claim": {"name": "models"}}, "reviews/bundle", "/models/reviews/bundle"),
        ({"type": "image", "image": {"reference": "r/m@sha256:" + 64 * "0"}}, "bundle", "/models/bundle"),
        ({"type": "objectStore", "objectStore": {"url": "s3://b/reviews"}}, "", "/models/artifact"),
        ({"type": "baked"}, "/opt/bundle", "/models/artifact"),
    ],
    ids=["claim", "image", "objectStore", "baked"],
)
def test_masters_have_the_bundle_and_workers_need_none(
    rendered: Rendered, source: dict[str, Any], path: str, model: str
) -> None:
    values = {**EVERYTHING, "model": {"source": source, "path": path, "digest": "sha256:" + 64 * "0"}}
    manifests = rendered(values)
    [deployment] = [each for each in manifests if each["kind"] == "Deployment"]
    for role, pod in pods(manifests).items():
        volumes = {volume["name"] for volume in pod["spec"]["volumes"]}
        if role.endswith("worker"):
            assert "model" not in volumes
            assert "initContainers" not in pod["spec"]
            continue
        assert container(pod)["args"][2] == model
        assert "model" in volumes
        assert {"/models"} == {m["mountPath"] for m in container(pod)["volumeMounts"] if m["name"] == "model"}
        made = pod["spec"].get("initContainers", [])
        assert len(made) == (source["type"] in ("objectStore", "baked"))
        for each in made:
            assert {mount["name"] for mount in each["volumeMounts"]} <= volumes
        if source["type"] == "baked":
            # What is tested is what is served: the bundle is taken from the very image.
            assert made[0]["image"] == deployment["spec"]["template"]["spec"]["containers"][0]["image"]
            assert made[0]["command"] == ["cp", "-r", path, model]


@pytest.mark.parametrize(
    ("over", "said"),
    [
        ({"existingSecret": ""}, "loadtest.existingSecret is needed"),
        ({"resultsClaim": ""}, "loadtest.resultsClaim is needed for loadtest.capacity"),
        ({"tls": {"clientSecret": ""}}, "loadtest.tls.clientSecret is needed"),
    ],
)
def test_what_can_not_work_is_refused_with_a_sentence(rendered: Rendered, over: dict[str, Any], said: str) -> None:
    with pytest.raises(RefusedError, match=said):
        rendered({**MUTUAL, "loadtest": {**MUTUAL["loadtest"], **over}})


def test_another_recipe_is_another_job_and_the_same_is_the_same(rendered: Rendered) -> None:
    def job(values: dict[str, Any]) -> set[str]:
        return {each["metadata"]["name"] for each in rendered(values) if each["kind"] == "Job"}

    changed = {**EVERYTHING, "loadtest": {**EVERYTHING["loadtest"], "recipe": {"rate": 21}}}
    assert job(EVERYTHING) == job(EVERYTHING)
    assert not job(EVERYTHING) & job(changed)


def test_another_version_of_the_chart_is_another_job(rendered: Rendered, helm: Path, tmp_path: Path) -> None:
    newer = tmp_path / "slipway"
    shutil.copytree(CHART, newer)
    about = (newer / "Chart.yaml").read_text(encoding="utf-8")
    (newer / "Chart.yaml").write_text(about.replace('appVersion: "0.1.0"', 'appVersion: "0.2.0"'), encoding="utf-8")

    def jobs(manifests: Manifests) -> dict[str, Any]:
        return {each["metadata"]["name"]: each["spec"] for each in manifests if each["kind"] == "Job"}

    old, new = (
        jobs(rendered(EVERYTHING)),
        jobs(render_chart(helm, EVERYTHING, "--kube-version=1.34.0", chart=newer, namespace="ml")),
    )
    # The image is another, and of a Job it can't be changed.
    assert old.keys().isdisjoint(new)


def test_names_fit_however_long_the_releases_is(rendered: Rendered) -> None:
    names: dict[str, set[str]] = {}
    for release in ("r" * 40 + "a", "r" * 40 + "b", "r" * 53):
        for each in filter(is_loadtest, rendered(EVERYTHING, release)):
            name = each["metadata"]["name"]
            assert len(name) <= (52 if each["kind"] == "CronJob" else 63)
            assert re.fullmatch("[a-z0-9]([-a-z0-9]*[a-z0-9])?", name)
            names.setdefault(release, set()).add(name)
    # What is cut off must not make two releases one.
    assert not set.intersection(*names.values())


def test_without_anything_asked_for_there_is_the_test_alone(rendered: Rendered) -> None:
    manifests = rendered(LEAST)
    assert set(pods(manifests)) == {"test"}
    [test] = [each for each in manifests if each["kind"] == "Pod"]
    assert test["metadata"]["annotations"]["helm.sh/hook"] == "test"
    assert "helm.sh/hook-delete-policy" in test["metadata"]["annotations"]
    assert not any(is_loadtest(each) for each in rendered({**LEAST, "loadtest": {"test": {"enabled": False}}}))


@pytest.mark.parametrize("schedule", ["@daily", "*/30 1-5 * * MON-FRI", "0 3 ? * 1,3", "59 23 31 Dec 0"])
def test_what_cron_reads_is_a_schedule(schedule: str, rendered: Rendered) -> None:
    values = {**EVERYTHING, "loadtest": {**EVERYTHING["loadtest"], "capacity": {"enabled": True, "schedule": schedule}}}
    jobs = [each for each in rendered(values) if each["kind"] == "CronJob"]
    assert {job["spec"]["schedule"] for job in jobs} == {schedule}
