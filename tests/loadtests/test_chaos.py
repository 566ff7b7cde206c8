"""Faults: whom they may hit, and that they end."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from loadtests.accompaniment import Accompaniment
from loadtests.chaos import FAULTS, Chaos, FillDisk, HogCpu, Kill, Pause
from loadtests.server import Server
from slipway.errors import LoadTestError
from slipway.processes import MARKER
from slipway.recipe import ChaosEvent, LoadTest
from slipway.recipe.chaos import FaultName

Stub = Callable[[str | None], subprocess.Popen[bytes]]

_LISTENS = """
import socket, time
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
time.sleep(600)
"""


@pytest.fixture
def stub(tmp_path: Path) -> Iterator[Stub]:
    """Start a process that looks like a stub of the endpoint with this id (None: of none)."""
    script = tmp_path / "triton_python_backend_stub"
    script.write_text(_LISTENS)
    started: list[subprocess.Popen[bytes]] = []

    def start(endpoint_id: str | None) -> subprocess.Popen[bytes]:
        environment = {name: value for name, value in os.environ.items() if name != MARKER}
        environment |= {MARKER: endpoint_id} if endpoint_id else {}
        process = subprocess.Popen([sys.executable, str(script)], env=environment, stdout=subprocess.PIPE)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def port_of(process: subprocess.Popen[bytes]) -> int:
    assert process.stdout is not None
    return int(process.stdout.readline())


def event(fault: str = "kill-stub", **more: object) -> ChaosEvent:
    return ChaosEvent.model_validate({"at_s": 0.0, "fault": fault, **more})


def eventually(condition: Callable[[], object], within_s: float = 20.0) -> bool:
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


@dataclass
class Noted:
    """A fault that only says what is done with it."""

    name: str = "noted"
    fails: bool = False
    done: list[str] = field(default_factory=list)

    def inject(self) -> str:
        if self.fails:
            raise LoadTestError("not here")
        self.done.append("inject")
        return "noted"

    def recover(self) -> None:
        self.done.append("recover")


def test_the_server_behind_a_port_is_known_by_its_mark_and_so_are_its_other_processes(stub: Stub) -> None:
    mine, other, unmarked = stub("one"), stub("one"), stub(None)
    stranger = stub("two")
    ports = {process: port_of(process) for process in (mine, other, unmarked, stranger)}
    server = Server.at(f"127.0.0.1:{ports[mine]}")
    assert server is not None
    assert server.endpoint_id == "one"
    assert {process.pid for process in server.in_role("stub")} == {mine.pid, other.pid}
    bare = Server.at(f"127.0.0.1:{ports[unmarked]}")
    assert bare is not None
    assert bare.endpoint_id is None
    assert [process.pid for process in bare.processes()] == [unmarked.pid]


def test_a_kill_hits_one_process_of_that_endpoint_and_no_other(stub: Stub) -> None:
    mine, stranger = stub("one"), stub("two")
    port_of(stranger)
    said = Kill("kill-stub", Server(mine.pid, "one"), "stub").inject()
    assert mine.wait(20) == -signal.SIGKILL
    assert str(mine.pid) in said
    assert stranger.poll() is None


def test_a_paused_process_goes_on_afterwards(stub: Stub) -> None:
    mine = stub("one")
    port_of(mine)
    process = psutil.Process(mine.pid)
    fault = Pause("pause-stub", Server(mine.pid, "one"), "stub")
    fault.inject()
    assert eventually(lambda: process.status() == psutil.STATUS_STOPPED)
    fault.recover()
    assert eventually(lambda: process.status() != psutil.STATUS_STOPPED)
    fault.recover()


def test_busy_loops_end_when_they_shall() -> None:
    others = psutil.Process().children()
    hog = HogCpu(2)
    hog.inject()
    children = [child for child in psutil.Process().children() if child not in others]
    assert len(children) >= 2
    hog.recover()
    assert not any(child.is_running() for child in children)


def test_a_large_disk_is_not_filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loadtests.chaos._LARGEST_DISK_BYTES", 0)
    fault = FillDisk(tmp_path)
    with pytest.raises(LoadTestError, match="small file system of its own"):
        fault.inject()
    fault.recover()
    assert list(tmp_path.iterdir()) == []


def test_a_small_disk_is_filled_to_the_last_byte_and_given_back(tmp_path: Path) -> None:
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(tmp_path)], check=False)
    if mounted.returncode != 0:
        pytest.skip("only root can mount a small file system")
    try:
        fault = FillDisk(tmp_path)
        fault.inject()
        with pytest.raises(OSError, match="No space left"):
            (tmp_path / "more").write_bytes(b"x" * 10_000)
        fault.recover()
        (tmp_path / "more").write_bytes(b"x" * 10_000)
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_faults_come_at_their_time_and_are_over_when_the_load_is() -> None:
    first, second, late = Noted("first"), Noted("second"), Noted("late")
    chaos = Chaos(
        [
            (event("hog-cpu", at_s=600.0), late),
            (event("hog-cpu", at_s=0.05, for_s=600.0), second),
            (event("hog-cpu", at_s=0.0, for_s=0.01), first),
        ]
    )
    zero_s = time.monotonic()
    chaos.begin(zero_s)
    assert eventually(lambda: second.done)
    chaos.end()
    assert (first.done, second.done, late.done) == (["inject", "recover"], ["inject", "recover"], [])
    assert [injected.fault for injected in chaos.injected] == ["first", "second"]
    assert all(injected.ended_s >= injected.began_s >= zero_s for injected in chaos.injected)
    assert chaos.injected[1].began_s - zero_s >= 0.05


def test_a_fault_that_could_not_be_made_spoils_the_run() -> None:
    chaos = Chaos([(event("hog-cpu"), Noted(fails=True))])
    chaos.begin(time.monotonic())
    assert eventually(lambda: chaos._failure)
    with pytest.raises(LoadTestError, match="hog-cpu could not be made: not here"):
        chaos.end()


def test_a_server_elsewhere_or_one_that_is_not_ours_is_refused_before_any_load(stub: Stub) -> None:
    load = LoadTest(chaos=[event()], duration_s=5.0)
    with pytest.raises(LoadTestError, match="this machine only"):
        Accompaniment(load, "192.0.2.1:8080", "tiny")
    unmarked = stub(None)
    with pytest.raises(LoadTestError, match="no endpoint of Slipway"):
        Accompaniment(load, f"127.0.0.1:{port_of(unmarked)}", "tiny")


@pytest.mark.parametrize(
    ("events", "said"),
    [
        ([{"at_s": 9.0, "fault": "kill-stub"}], "comes after the load"),
        ([{"at_s": 1.0, "fault": "fill-disk", "directory": "/no/such"}], "does not exist"),
    ],
)
def test_a_schedule_that_can_not_work_is_one_clear_line(events: list[dict[str, object]], said: str) -> None:
    with pytest.raises(LoadTestError, match=said):
        Chaos.on(Server(1, "one"), [ChaosEvent.model_validate(each) for each in events], 5.0, local=True)


def test_every_fault_of_a_recipe_is_there() -> None:
    assert set(FAULTS) == set(FaultName.__args__)  # type: ignore[attr-defined]
