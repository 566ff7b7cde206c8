"""One endpoint for the tests that only ask; a child process for those that end one."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import psutil
import pytest

import serving
from serving.server.envoy_admin import EnvoyAdmin
from slipway.bundle import Bundle
from slipway.processes import MARKER, marked_processes
from slipway.recipe import Limits, Serve
from tests.tiny_bundle import write_tiny_bundle

OWNER = """
import contextlib, json, sys
from pathlib import Path
import serving
from serving.server.endpoint import sigterm_interrupts
from slipway.recipe import Serve

section = Serve.model_validate_json(json.dumps({"port": 0, **json.loads(sys.argv[2])}))
with serving.start(Path(sys.argv[1]), section) as endpoint:
    with contextlib.suppress(KeyboardInterrupt), sigterm_interrupts():
        print(json.dumps({"address": endpoint.address, "runtime": str(endpoint.access_log.parent)}), flush=True)
        endpoint.wait()
"""


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_tiny_bundle(tmp_path_factory.mktemp("tiny") / "bundle")


@pytest.fixture(scope="session")
def repository(bundle: Bundle) -> Path:
    section = Serve(port=0, instances=2)
    return serving.write_repository(bundle, bundle.path.parent / "repository", section).path


@pytest.fixture(scope="session")
def endpoint(repository: Path) -> Iterator[serving.Endpoint]:
    # Tests send a hundred requests at once, on machines that are busy with others.
    section = Serve(port=0, max_body_bytes=400_000, limits=Limits(slo_ms=10_000))
    with serving.start(repository, section) as running:
        yield running


@pytest.fixture(scope="session")
def promtool() -> str:
    """Prometheus' own checker; in the Debian package `prometheus`."""
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("promtool is not installed")
    return found


@dataclass
class Owner:
    """A process that owns an endpoint, as `slipway serve` does."""

    process: subprocess.Popen[str]
    address: str
    runtime: Path

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])

    def named(self, part: str) -> list[psutil.Process]:
        """The endpoint's processes whose command line has `part` in it."""
        found = []
        for process in marked_processes(self.runtime.name):
            with contextlib.suppress(psutil.Error):
                if any(part in argument for argument in process.cmdline()):
                    found.append(process)
        return found

    def active_requests(self) -> int:
        """Requests that the front door has to answer yet."""
        return EnvoyAdmin(self.runtime / "envoy.sock").traffic().requests

    def leftovers(self) -> list[str]:
        """What is there of the endpoint: processes, shared memory, files, its port."""
        found = [f"process {process.pid}" for process in marked_processes(self.runtime.name)]
        found += [str(file) for file in Path("/dev/shm").glob(f"*{self.runtime.name}*")]  # noqa: S108
        found += [str(self.runtime)] if self.runtime.exists() else []
        listening = {one.laddr.port for one in psutil.net_connections("inet") if one.status == psutil.CONN_LISTEN}
        return found + ([f"port {self.port}"] if self.port in listening else [])


@pytest.fixture
def own(repository: Path) -> Iterator[Callable[..., Owner]]:
    """Start an owner of an endpoint; whatever the test leaves of it is removed."""
    with owners(repository) as start:
        yield start


@contextlib.contextmanager
def owners(repository: Path) -> Iterator[Callable[..., Owner]]:
    """A function that starts owners of endpoints; whatever the block leaves of them is removed."""
    started: list[Owner] = []

    def start(
        served: Path = repository, environment: Mapping[str, str] = MappingProxyType({}), **settings: Any
    ) -> Owner:
        process = subprocess.Popen(
            [sys.executable, "-c", OWNER, str(served), json.dumps(settings)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={key: value for key, value in os.environ.items() if key != MARKER} | dict(environment),
        )
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, process.communicate()[1]
        about = json.loads(line)
        started.append(Owner(process, about["address"], Path(about["runtime"])))
        return started[-1]

    yield start
    for owner in started:
        owner.process.kill()
        owner.process.communicate()
        eventually(lambda owner=owner: not owner.leftovers())


def eventually(condition: Callable[[], object], within: float = 30.0) -> bool:
    """Whether `condition` comes true within so many seconds."""
    deadline = time.monotonic() + within
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True
