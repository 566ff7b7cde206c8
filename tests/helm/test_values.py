"""`values.yaml` is documented and its schema is whole: what is not there is refused, and nothing there is missing."""

import json
import re
from itertools import takewhile
from typing import Any

import jsonschema
import pytest
import yaml

from autoscaling.settings import read_values
from deployment.schema import values_schema
from tests.helm.cases import MATRIX, MINIMAL
from tests.helm.rendering import CHART, merged

pytestmark = [pytest.mark.unit]

TEXT = (CHART / "values.yaml").read_text(encoding="utf-8")
FREE = {"serve", "recipe", "env", "nodeSelector", "dashboardLabels", "requests", "limits"}
"""Sections whose keys are the user's or another document's."""


def test_the_schema_is_what_the_code_makes() -> None:
    assert json.loads((CHART / "values.schema.json").read_text(encoding="utf-8")) == values_schema()


def test_the_schema_knows_every_default_and_nothing_else() -> None:
    def compare(values: dict[str, Any], schema: dict[str, Any], at: str) -> None:
        known = set(schema["properties"]) - {"global"}
        assert set(values) == known, at
        for key, value in values.items():
            below = schema["properties"][key]
            if isinstance(value, dict) and "properties" in below and key not in FREE:
                compare(value, below, f"{at}.{key}")

    compare(yaml.safe_load(TEXT), values_schema(), "values")


def test_the_defaults_and_all_cases_are_valid() -> None:
    defaults = yaml.safe_load(TEXT)
    jsonschema.Draft202012Validator.check_schema(values_schema())
    validator = jsonschema.Draft202012Validator(values_schema())
    for name, values in {"defaults": {}, **MATRIX}.items():
        errors = [error.message for error in validator.iter_errors(merged(merged(defaults, MINIMAL), values))]
        assert errors == [], name


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


def test_the_plan_reads_the_charts_own_values() -> None:
    found = read_values(CHART / "values.yaml", instances=2)
    assert found.targets == {"busyInstances": 1.4, "inFlight": 4.0}
    assert (found.minReplicas, found.maxReplicas) == (2, 20)
    assert found.behavior.scaleDown.stabilizationWindowSeconds == 300
