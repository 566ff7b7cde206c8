"""`values.yaml` is documented and its schema is whole: what is not there is refused, and nothing there is missing."""

import json
import re
from collections.abc import Iterator
from copy import deepcopy
from functools import reduce
from itertools import takewhile
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from autoscaling.manifest import Scaler
from autoscaling.policies import ByMetrics
from autoscaling.settings import read_values
from autoscaling.traffic import constant
from deployment.schema import values_schema
from tests.helm.cases import EVERYTHING, MATRIX, MINIMAL
from tests.helm.rendering import CHART, Render, merged, of_kind, render_chart

pytestmark = [pytest.mark.unit]

TEXT = (CHART / "values.yaml").read_text(encoding="utf-8")
FREE = {"serve", "recipe", "env", "nodeSelector", "dashboardLabels", "requests", "limits"}
"""Sections whose keys are the user's or another document's."""
NEEDED = {
    ("model", "source", "type"),
    ("model", "source", "image", "reference"),
    ("auth", "apiKeys", "existingSecret"),
    ("auth", "jwt", "issuer"),
    ("auth", "jwt", "audiences"),
    ("auth", "externalSecret", "storeName"),
    ("auth", "externalSecret", "remoteKey"),
    ("tls", "certManager", "issuerName"),
    ("hostnames",),
    ("gateway", "name"),
    ("gateway", "canary", "service"),
    ("engineCache", "claimName"),
    ("capture", "claimName"),
    ("loadtest", "existingSecret"),
    ("loadtest", "tls", "clientSecret"),
    ("loadtest", "resultsClaim"),
}
"""What `EVERYTHING` can't do without, as a sentence says."""


def test_the_schema_is_what_the_code_makes() -> None:
    assert json.loads((CHART / "values.schema.json").read_text(encoding="utf-8")) == values_schema()


def test_the_schema_knows_every_default_and_nothing_else() -> None:
    def compare(values: dict[str, Any], schema: dict[str, Any], at: str) -> None:
        assert set(values) == set(schema["properties"]), at
        for key, value in values.items():
            below = schema["properties"][key]
            if isinstance(value, dict) and "properties" in below and key not in FREE:
                compare(value, below, f"{at}.{key}")

    schema = values_schema()
    for of_a_chart_around in ("global", "enabled"):
        del schema["properties"][of_a_chart_around]
    compare(yaml.safe_load(TEXT), schema, "values")


def test_the_defaults_and_all_cases_are_valid() -> None:
    defaults = yaml.safe_load(TEXT)
    jsonschema.Draft202012Validator.check_schema(values_schema())
    validator = jsonschema.Draft202012Validator(values_schema())
    for name, values in {"defaults": {}, **MATRIX}.items():
        errors = [error.message for error in validator.iter_errors(merged(merged(defaults, MINIMAL), values))]
        assert errors == [], name


def test_every_key_may_be_null_or_is_missed_by_its_name(helm: Path) -> None:
    """`--set KEY=null` takes a default away, and so does `KEY:` with nothing behind it."""

    def paths(values: dict[str, Any], above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
        for key, value in values.items():
            yield (*above, key)
            if isinstance(value, dict):
                yield from paths(value, (*above, key))

    defaults = merged(yaml.safe_load(TEXT), merged(MINIMAL, EVERYTHING))
    validator = jsonschema.Draft202012Validator(values_schema())
    emptied: dict[str, Any] = {}
    for path in paths(yaml.safe_load(TEXT)):
        if set(path) & FREE:
            continue
        *above, last = path
        values = deepcopy(defaults)
        holder = reduce(lambda found, key: found[key], above, values)
        del holder[last]
        errors = [error.message for error in validator.iter_errors(values)]
        assert errors in ([], [f"{last!r} is a required property"]), path
        if not errors and path not in NEEDED:
            emptied = merged(emptied, reduce(lambda below, key: {key: below}, reversed(path), None))  # type: ignore[arg-type, return-value]
    # What may be empty, all at once.
    manifests = render_chart(helm, merged(merged(MINIMAL, EVERYTHING), emptied), "--kube-version=1.34.0")
    assert "<nil>" not in json.dumps(manifests)


def test_every_key_has_a_comment_of_its_own() -> None:
    lines = TEXT.splitlines()
    bare = []
    for number, line in enumerate(lines):
        if re.match(r"\s*[A-Za-z]\w*:", line) is None:
            continue
        above = list(takewhile(lambda text: text.lstrip().startswith("#"), reversed(lines[:number])))
        if not any(text.lstrip().startswith("# --") for text in above):
            bare.append(line.strip())
    assert bare == []


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"autoscaling": {"behavior": {"scaleDown": {"stabilizationWindowSeconds": 600}}}},
        {"autoscaling": {"behavior": {"scaleUp": {"policies": [{"type": "Pods", "value": 1, "periodSeconds": 60}]}}}},
        {"autoscaling": {"behavior": {"scaleUp": None, "scaleDown": {"policies": None, "selectPolicy": None}}}},
        {"autoscaling": {"targets": {"inFlight": 7, "busyInstances": None}}},
        {"serve": {"layout": "ensemble"}},
        {"hardware": "mig-1g.10gb"},
        {"hardware": "nvidia-l4", "serve": {"layout": "fused"}},
    ],
)
def test_a_plan_decides_by_what_the_chart_renders(values: dict[str, Any], render: Render, tmp_path: Path) -> None:
    values = merged({"instances": 2, "autoscaling": {"type": "hpa"}}, values)
    file = tmp_path / "values.yaml"
    file.write_text(yaml.safe_dump(values), encoding="utf-8")
    planned = read_values(file, instances=2)
    (tmp_path / "hpa.yaml").write_text(
        yaml.safe_dump(of_kind(render(values), "HorizontalPodAutoscaler")), encoding="utf-8"
    )
    rendered = Scaler.read(tmp_path / "hpa.yaml")
    policy = planned.policy(constant(1.0, 60))
    assert isinstance(policy, ByMetrics)
    assert policy.autoscaler.behavior == rendered.behavior
    assert {f"slipway_{name}": round(1000 * value) for name, value in policy.targets.items()} == {
        target.name: target.milli for target in rendered.targets
    }


def test_a_plan_takes_a_gpus_duty_for_its_busy_instances(tmp_path: Path) -> None:
    file = tmp_path / "values.yaml"
    file.write_text("hardware: nvidia-l4", encoding="utf-8")
    assert read_values(file, instances=2).targets == {"inFlight": 32.0, "busyInstances": 1.4}
    file.write_text("hardware: nvidia-l4\nautoscaling: {targets: {gpuDuty: 0.5}}", encoding="utf-8")
    assert read_values(file, instances=2).targets == {"inFlight": 32.0, "busyInstances": 1.0}


def test_the_plan_reads_the_charts_own_values() -> None:
    found = read_values(CHART / "values.yaml", instances=2)
    assert found.targets == {"busyInstances": 1.4, "inFlight": 4.0}
    assert (found.minReplicas, found.maxReplicas) == (2, 20)
    assert found.behavior.scaleDown.stabilizationWindowSeconds == 300
