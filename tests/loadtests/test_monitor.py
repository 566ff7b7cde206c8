"""What is seen of a server while the load runs."""

import os
import subprocess
import sys
import time

import pytest

from loadtests.monitor import Monitor
from loadtests.server import Server

pytestmark = pytest.mark.unit


def eventually(monitor: Monitor, looks: int) -> None:
    deadline = time.monotonic() + 30
    while monitor.looks < looks:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_busy_process_shows_in_the_cores_that_the_server_took() -> None:
    loop = f"import os\nwhile os.getppid() == {os.getpid()}: pass"
    with subprocess.Popen([sys.executable, "-S", "-c", loop]) as busy:
        try:
            with Monitor(Server(busy.pid, None), None, "tiny") as monitor:
                zero_s = time.monotonic()
                eventually(monitor, 3)
            usage, work = monitor.over(zero_s - 5, time.monotonic())
        finally:
            busy.kill()
    assert usage is not None
    assert usage.cpu_cores > 0.05
    assert usage.machine_cores >= 0.9 * usage.cpu_cores
    assert usage.rss_mb > 1
    assert work is None
    assert len(monitor.readings(zero_s)) == monitor.looks - 1


def test_readings_are_bounded_however_long_the_run_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loadtests.monitor._MOST_READINGS", 8)
    monkeypatch.setattr("loadtests.monitor._INTERVAL_S", 0.002)
    with Monitor(Server(os.getpid(), None), None, "tiny") as monitor:
        began_s = time.monotonic()
        most = 0
        while time.monotonic() < began_s + 30 and monitor.interval_s < 0.03:
            most = max(most, monitor.looks)
            time.sleep(0.001)
    assert monitor.interval_s >= 0.03
    assert most <= 10
    readings = monitor.readings(began_s)
    assert readings[0].at_s < readings[-1].at_s


def test_nothing_is_seen_where_there_is_nothing_to_see() -> None:
    with Monitor(None, None, "tiny") as monitor:
        pass
    assert monitor.readings(0) == []
    assert monitor.over(0, 1) == (None, None)


def test_a_server_that_ends_during_the_run_keeps_what_it_used() -> None:
    with subprocess.Popen([sys.executable, "-S", "-c", "sum(range(10**7))"]) as short:
        with Monitor(Server(short.pid, None), None, "tiny") as monitor:
            short.wait(60)
            eventually(monitor, 3)
        usages = [reading.usage for reading in monitor.readings(0)]
    assert all(usage is not None and usage.cpu_cores >= 0 for usage in usages)
