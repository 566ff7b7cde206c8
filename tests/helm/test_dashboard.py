"""The dashboard as the chart has it; tests/live runs its queries."""

import json
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from deployment.dashboard.__main__ import FILE
from deployment.dashboard.build import dashboard_json
from tests.helm.rules import NAMESPACE, render


@pytest.fixture(scope="module")
def board() -> Any:
    return json.loads(FILE.read_text(encoding="utf-8"))


@pytest.mark.unit
def test_the_committed_file_is_what_the_code_makes() -> None:
    assert FILE.read_text(encoding="utf-8") == dashboard_json(), "run python -m deployment.dashboard"


@pytest.mark.unit
def test_panels_are_in_rows_that_fill_the_width_and_none_lies_on_another(board: Any) -> None:
    assert board["panels"][0]["type"] == "row"
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert max(x for x, _ in cells) < 24
        assert not cells & taken, panel["title"]
        taken |= cells
    for row, below in pairwise(panel["gridPos"]["y"] for panel in board["panels"] if panel["type"] == "row"):
        assert row < below


@pytest.mark.unit
def test_every_query_goes_to_the_chosen_prometheus_namespace_and_release(board: Any) -> None:
    assert [variable["name"] for variable in board["templating"]["list"]] == ["datasource", "namespace", "release"]
    for panel in board["panels"]:
        for target in panel.get("targets") or []:
            assert target["datasource"]["uid"] == "${datasource}"
            if target["expr"] == "vector(1)":
                continue
            for selector in re.findall(r"\{[^{}]*namespace[^}]*", target["expr"]):
                assert 'namespace="$namespace"' in selector
            assert target["expr"].count('namespace="$namespace"') >= len(re.findall(r"[a-z_]\{", target["expr"]))
            assert re.search(r"\$\{?release", target["expr"])


@pytest.mark.unit
@pytest.mark.parametrize(
    ("pod", "release"),
    [("reviews-slipway-6c7bf9d5c4-x2x9k", "reviews-slipway"), ("slipway-canary-6c7bf9d5c4-x2x9k", "slipway-canary")],
)
def test_the_release_is_read_from_a_pods_name(board: Any, pod: str, release: str) -> None:
    pattern = board["templating"]["list"][2]["regex"].strip("/")
    found = re.search(pattern, pod)
    assert found is not None
    assert found[1] == release


@pytest.mark.integration
def test_the_config_map_has_the_file_as_it_is_and_the_labels_that_grafana_looks_for(helm: Path) -> None:
    settings = ("observability.dashboard=true", "observability.dashboardLabels.team=search")
    [manifest] = render(helm, "templates/dashboard.yaml", *settings)
    assert manifest["kind"] == "ConfigMap"
    assert manifest["metadata"]["namespace"] == NAMESPACE
    assert manifest["metadata"]["labels"].items() >= {"grafana_dashboard": "1", "team": "search"}.items()
    assert json.loads(manifest["data"]["slipway.json"]) == json.loads(FILE.read_text(encoding="utf-8"))
