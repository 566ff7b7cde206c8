"""The processes of an endpoint on this machine, found by the mark that each of them carries.

Whoever starts an endpoint puts its id into the environment, and everything that it starts inherits it, Triton's stubs
included. So processes are told apart by whose they are and not by their names: on a machine with two endpoints, or
with somebody else's Triton, a name would hit the wrong one.
"""

import contextlib
import os

import psutil

MARKER = "SLIPWAY_ENDPOINT_ID"


def marked_processes(endpoint_id: str) -> list[psutil.Process]:
    """Live processes of this user that carry the id, without the calling one."""
    return [
        process for process in psutil.process_iter() if process.pid != os.getpid() and mark_of(process) == endpoint_id
    ]


def mark_of(process: psutil.Process) -> str | None:
    """The id of the endpoint that `process` belongs to; None if it belongs to none, or isn't ours to look at."""
    with contextlib.suppress(psutil.Error, OSError):
        return process.environ().get(MARKER)
    return None
