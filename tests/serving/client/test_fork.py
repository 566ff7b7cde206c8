"""A client in a forked process: a connection that two processes read from would give one the answers of the other."""

import subprocess
import sys
from typing import Any

import pytest

from tests.serving.client.scripted_endpoint import ScriptedEndpoint

pytestmark = [pytest.mark.integration]

_DEADLINE_S = 60
_SCRIPT = """
import asyncio, os, sys
from serving import AsyncClient, Client

kind, address, protocol = sys.argv[1:]

def told(work):
    try:
        return work()
    except Exception as error:
        return f"{type(error).__name__}: {error}"

if kind == "sync":
    client = Client(address, "tiny", protocol)
    ask = lambda: client.classify(["abc"])[0].label
    close = client.close
else:
    loop = asyncio.new_event_loop()
    client = AsyncClient(address, "tiny", protocol)
    ask = lambda: loop.run_until_complete(client.classify(["abc"]))[0].label
    close = lambda: loop.run_until_complete(client.close())
print("before", ask(), flush=True)
child = os.fork()
if not child:
    print("child", told(ask), flush=True)
    print("closed", told(close), flush=True)
    with Client(address, "tiny", "http") as own:
        print("own", own.classify(["abc"])[0].label, flush=True)
    os._exit(0)
print("ended", os.waitpid(child, 0)[1], flush=True)
print("after", ask(), flush=True)
close()
"""


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_forked_process_is_told_to_make_a_client_of_its_own(kind: str, protocol: Any) -> None:
    with ScriptedEndpoint(protocol) as endpoint, ScriptedEndpoint("http") as other:
        script = _SCRIPT.replace('Client(address, "tiny", "http")', f'Client("{other.address}", "tiny", "http")')
        command = [sys.executable, "-c", script, kind, endpoint.address, protocol]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=_DEADLINE_S, check=False)
    assert [line.partition(":")[0] for line in ran.stdout.splitlines()] == [
        "before cba",
        "child RuntimeError",
        "closed None",
        "own cba",
        "ended 0",
        "after cba",
    ], ran.stdout + ran.stderr
    assert "made before os.fork" in ran.stdout
