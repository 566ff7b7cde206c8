"""What processes use: processor time of any, and memory as well of an endpoint's, by what they are."""

import contextlib
from collections import defaultdict
from collections.abc import Iterable

import psutil

import serving
from slipway.processes import marked_processes

KINDS = {"triton_python_backend_stub": "model", "tritonserver": "Triton", "envoy": "Envoy"}


def used_s(processes: Iterable[psutil.Process]) -> float:
    """Processor seconds that they have used so far; those that have ended count nothing."""
    used = 0.0
    for process in processes:
        with contextlib.suppress(psutil.Error):
            times = process.cpu_times()
            used += times.user + times.system
    return used


def tree(root: psutil.Process) -> list[psutil.Process]:
    """A process and all that it started."""
    return [root, *root.children(recursive=True)]


def kind_of(process: psutil.Process) -> str:
    """Triton, Envoy, model (Triton's Python processes) or supervisor."""
    # The kernel cuts names to 15 letters.
    name = process.name()
    return next((kind for part, kind in KINDS.items() if part.startswith(name[:15])), "supervisor")


def processes(endpoint: serving.Endpoint) -> list[psutil.Process]:
    return marked_processes(endpoint.access_log.parent.name)


def cpu_s(endpoint: serving.Endpoint) -> dict[str, float]:
    """Processor seconds used so far."""
    used: dict[str, float] = defaultdict(float)
    for process in processes(endpoint):
        with contextlib.suppress(psutil.Error):
            used[kind_of(process)] += used_s([process])
    return used


def memory_mb(endpoint: serving.Endpoint) -> dict[str, tuple[int, float, float]]:
    """Processes, resident megabytes, and megabytes that are theirs alone or their share of what is shared (PSS)."""
    found: dict[str, tuple[int, float, float]] = {}
    for process in processes(endpoint):
        with contextlib.suppress(psutil.Error):
            memory = process.memory_full_info()
            count, resident, share = found.get(kind_of(process), (0, 0.0, 0.0))
            found[kind_of(process)] = (count + 1, resident + memory.rss / 1e6, share + memory.pss / 1e6)
    return found


def triton_address(endpoint: serving.Endpoint, protocol: str) -> str:
    """Triton's own, behind Envoy, from its command line."""
    [triton] = [process for process in processes(endpoint) if kind_of(process) == "Triton"]
    option = f"--{protocol}-port="
    [port] = [word.removeprefix(option) for word in triton.cmdline() if word.startswith(option)]
    return f"127.0.0.1:{port}"
