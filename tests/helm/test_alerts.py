"""The chart's alerts, rendered by the real Helm: each fires in the real promtool, and not on series close by."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from tests.helm.alert_cases import cases
from tests.helm.cases import MINIMAL
from tests.helm.rendering import CHART, RefusedError, merged
from tests.helm.rules import NAMESPACE, RELEASE, Case, group, promtool_test, render

pytestmark = pytest.mark.integration

RULES = "templates/prometheusrule.yaml"
RUNBOOKS = Path(__file__).parents[2] / "docs" / "runbooks"
CASES = list(cases())


def of_days(case: Case) -> bool:
    return case.at.endswith("h")


@pytest.fixture(scope="session")
def promtool() -> str:
    """Prometheus' own checker; in the Debian package `prometheus`."""
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("promtool is not installed")
    return found


@pytest.fixture(scope="session")
def manifest(helm: Path) -> Any:
    [found] = render(
        helm, RULES, "alerts.enabled=true", "alerts.labels.team=search", "observability.labels.release=kps"
    )
    return found


@pytest.fixture(scope="session")
def rules_file(manifest: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rules(tmp_path_factory.mktemp("rules") / "rules.yml", manifest["spec"]["groups"])


@pytest.fixture(scope="session")
def rules_of(manifest: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Alert → the groups that it needs: days are evaluated in half the time without the others."""
    groups = {group["name"].rpartition(".")[2]: group for group in manifest["spec"]["groups"]}
    folder = tmp_path_factory.mktemp("rules")
    needs = {"budgets": ("slo", "budgets"), "endpoint": ("slo", "endpoint"), "drift": ("drift",)}
    files = {
        name: write_rules(folder / f"{name}.yml", [groups[one] for one in needed]) for name, needed in needs.items()
    }
    return {rule["alert"]: files[name] for name in needs for rule in groups[name]["rules"] if "alert" in rule}


def write_rules(file: Path, groups: list[Any]) -> Path:
    file.write_text(yaml.safe_dump({"groups": groups}, sort_keys=False, width=10_000), encoding="utf-8")
    return file


@pytest.fixture(scope="session")
def alerts(manifest: Any) -> list[Any]:
    return [rule for group in manifest["spec"]["groups"] for rule in group["rules"] if "alert" in rule]


def schema(name: str) -> Any:
    return json.loads((Path(__file__).parent / "crds" / f"{name}.json").read_text(encoding="utf-8"))


def evaluation_interval(case: Case) -> str:
    """A minute; over days less often, but within the five minutes after which a sample is too old."""
    return "4m" if of_days(case) else "1m"


def test_promtool_finds_nothing_wrong_with_the_rules(promtool: str, rules_file: Path) -> None:
    command = [promtool, "check", "rules", "--lint=all", str(rules_file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "case", [pytest.param(case, id=case.name, marks=[pytest.mark.slow] if of_days(case) else []) for case in CASES]
)
def test_an_alert_fires_on_what_it_is_for_and_not_on_what_is_close_to_it(
    case: Case, promtool: str, rules_of: dict[str, Path]
) -> None:
    expected = [{"labels": "{}", "value": 1}] if case.fires else []
    look = {"expr": f"count({case.selector})", "eval_time": case.at, "exp_samples": expected}
    entry = group(case, promql_expr_test=[look])
    code, said = promtool_test(promtool, rules_of[case.alert], [entry], evaluation_interval(case))
    assert code == 0, said


def test_every_alert_has_a_case_in_which_it_fires_and_one_in_which_it_does_not(alerts: list[Any]) -> None:
    def covered(alert: Any, fires: bool) -> bool:
        labels = alert["labels"]
        return any(
            case.alert == alert["alert"]
            and case.fires == fires
            and all(labels.get(name, value) == value for name, value in case.labels.items())
            for case in CASES
        )

    for alert in alerts:
        for fires in (True, False):
            assert covered(alert, fires), f"{alert['alert']} {alert['labels']} {'fires' if fires else 'is quiet'}"
    assert {case.alert for case in CASES} <= {alert["alert"] for alert in alerts}


def test_annotations_are_sentences_about_the_alert_that_fires(promtool: str, manifest: Any, tmp_path: Path) -> None:
    hours = [one for one in manifest["spec"]["groups"] if not one["name"].endswith(".drift")]
    file = write_rules(tmp_path / "rules.yml", hours)
    # promtool prints an alert that it did not expect, with its annotations.
    entries = [
        group(case, alert_rule_test=[{"eval_time": case.at, "alertname": case.alert, "exp_alerts": []}])
        for case in CASES
        if case.fires and not of_days(case)
    ]
    code, said = promtool_test(promtool, file, entries, "1m")
    assert code == 1
    assert said.count("description=") >= len(entries)
    for sign in ("{{", "<no value>", "<error", "NaN", "%!"):
        assert sign not in said
    assert "1.6% of the requests failed over 1h, at most 0.1% are promised over 30 days" in said
    assert "16% of the answers took more than 100 ms over 1h" in said
    assert "envoy at reviews-slipway-6c7bf9d5c4-x2x9k has not answered" in said
    assert "triton (stable) at reviews-slipway-6c7bf9d5c4-x2x9k has not answered" in said
    assert "13.0 days are left" in said


def test_every_alert_says_what_it_is_about_and_where_to_read_on(alerts: list[Any]) -> None:
    for alert in alerts:
        name = alert["alert"]
        assert alert["labels"].items() >= {"team": "search", "release": RELEASE, "namespace": NAMESPACE}.items()
        assert alert["labels"]["severity"] in {"critical", "warning"}
        assert set(alert["annotations"]) == {"summary", "description", "runbook_url"}
        assert alert["annotations"]["runbook_url"].endswith(f"/docs/runbooks/{name}.md")
        assert not alert["annotations"]["summary"].endswith(".")


def test_runbooks_are_where_the_values_say_with_or_without_a_slash(helm: Path) -> None:
    for url in ("https://wiki.example.com/books", "https://wiki.example.com/books/"):
        [found] = render(helm, RULES, "alerts.enabled=true", f"alerts.runbookUrl={url}")
        urls = {
            rule["annotations"]["runbook_url"]
            for group in found["spec"]["groups"]
            for rule in group["rules"]
            if rule.get("alert") == "SlipwayErrors"
        }
        assert urls == {"https://wiki.example.com/books/SlipwayErrors.md"}


def test_every_alert_has_a_runbook_and_every_runbook_an_alert(alerts: list[Any]) -> None:
    names = {alert["alert"] for alert in alerts}
    assert {file.stem for file in RUNBOOKS.glob("*.md")} == names
    for name in names:
        text = (RUNBOOKS / f"{name}.md").read_text(encoding="utf-8")
        assert text.startswith(f"# {name}\n")
        headings = [line for line in text.splitlines() if line.startswith("## ")]
        assert headings == ["## Meaning", "## Impact", "## How to look", "## What to do"], name


def test_the_rules_are_what_the_operator_takes_and_carry_the_labels_that_it_selects_by(manifest: Any) -> None:
    jsonschema.validate(manifest, schema("prometheusrule"))
    assert manifest["metadata"]["labels"]["release"] == "kps"
    assert manifest["metadata"]["namespace"] == NAMESPACE
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**manifest, "spec": {"groups": [{"name": "x", "rule": []}]}}, schema("prometheusrule"))


def test_the_monitor_is_what_the_operator_takes_and_selects_the_pods_of_this_release(helm: Path) -> None:
    settings = ("observability.podMonitor=true", "observability.labels.release=kps", "observability.scrapeInterval=15s")
    [found] = render(helm, "templates/podmonitor.yaml", *settings)
    jsonschema.validate(found, schema("podmonitor"))
    assert found["metadata"]["labels"]["release"] == "kps"
    assert found["spec"]["selector"]["matchLabels"] == {
        "app.kubernetes.io/name": "slipway",
        "app.kubernetes.io/instance": RELEASE,
        "app.kubernetes.io/component": "endpoint",
    }
    [endpoint] = found["spec"]["podMetricsEndpoints"]
    assert endpoint == {"port": "metrics", "path": "/metrics", "interval": "15s"}


def test_nothing_is_rendered_unless_asked_for(helm: Path) -> None:
    for template in (RULES, "templates/podmonitor.yaml", "templates/dashboard.yaml"):
        with pytest.raises(RefusedError, match="could not find template"):
            render(helm, template)


def test_disabled_alerts_are_left_out_and_their_group_with_the_last_of_them(helm: Path, alerts: list[Any]) -> None:
    gone = {"SlipwayAvailabilityBudgetBurn", "SlipwayLatencyBudgetBurn", "SlipwayGpuDutyHigh"}
    [found] = render(helm, RULES, "alerts.enabled=true", f"alerts.disabled={{{','.join(gone)}}}")
    kept = {rule["alert"] for group in found["spec"]["groups"] for rule in group["rules"] if "alert" in rule}
    assert kept == {alert["alert"] for alert in alerts} - gone
    assert all(group["rules"] for group in found["spec"]["groups"])
    assert [group["name"] for group in found["spec"]["groups"]] == [
        "reviews-slipway.slo", "reviews-slipway.endpoint", "reviews-slipway.drift",
    ]  # fmt: skip


@pytest.mark.parametrize("enabled", ["true", "false"])
def test_an_unknown_name_among_the_disabled_is_an_error_that_lists_the_known(helm: Path, enabled: str) -> None:
    with pytest.raises(RefusedError) as raised:
        render(helm, RULES, f"alerts.enabled={enabled}", "alerts.disabled={SlipwayErrors,SlipwayGpuMemory}")
    assert 'alerts.disabled: there is no alert "SlipwayGpuMemory"; there are Slipway' in str(raised.value)
    assert "SlipwayGpuMemoryHigh" in str(raised.value)


def expression(helm: Path, name: str, *settings: str, **labels: str) -> str:
    [found] = render(helm, RULES, "alerts.enabled=true", *settings)
    [expr] = [
        rule["expr"]
        for group in found["spec"]["groups"]
        for rule in group["rules"]
        if name in (rule.get("alert"), rule.get("record")) and labels.items() <= rule["labels"].items()
    ]
    return str(expr)


def test_an_objective_that_is_no_whole_number_is_the_bound_that_envoy_writes(helm: Path, tmp_path: Path) -> None:
    file = tmp_path / "values.yaml"
    values = merged(MINIMAL, {"alerts": {"enabled": True}, "slo": {"latencyMs": 62.5, "latencyPercent": 95}})
    file.write_text(yaml.safe_dump(values), encoding="utf-8")
    command = [str(helm), "template", "x", str(CHART), "--show-only", RULES, "--values", str(file)]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert r'le=~"62\\.5"' in text
    assert "> 0.72" in text  # 14.4 times 5 %


def test_a_rate_that_can_not_be_reached_is_nine_of_ten(helm: Path) -> None:
    found = expression(helm, "SlipwayLatencyBudgetBurn", "slo.latencyPercent=90", long="1h")
    assert "ratio_rate1h" in found
    assert "> 0.9\n" in found


def test_no_metrics_are_no_wonder_where_the_release_scales_to_zero(helm: Path, promtool: str, tmp_path: Path) -> None:
    [found] = render(helm, RULES, "alerts.enabled=true", "autoscaling.minReplicas=0")
    file = tmp_path / "rules.yml"
    file.write_text(yaml.safe_dump(found["spec"]), encoding="utf-8")
    ready = 'kube_deployment_status_replicas_ready{namespace="ml",deployment="reviews-slipway"}'
    for case in (
        Case("SlipwayMetricsMissing", False, {ready: "0x40"}, "20m", because="no pod"),
        Case("SlipwayMetricsMissing", False, {}, "20m", because="nothing is known"),
        Case("SlipwayMetricsMissing", True, {ready: "1x40"}, "20m", because="a pod that nobody scrapes"),
    ):
        expected = [{"labels": "{}", "value": 1}] if case.fires else []
        look = {"expr": f"count({case.selector})", "eval_time": case.at, "exp_samples": expected}
        code, said = promtool_test(promtool, file, [group(case, promql_expr_test=[look])], "1m")
        assert code == 0, said
