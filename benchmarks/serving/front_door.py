"""What the front door costs: the same requests straight to Triton and through Envoy, in turn, one at a time.

    python -m benchmarks.serving.front_door BUNDLE [REQUESTS]

Interleaved, so that whatever else the machine does hits both alike. Latency of a single caller says what Envoy adds to
a request; it says nothing about capacity, which is the load test's business.
"""

import argparse
import json
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

import serving
from slipway.bundle import Bundle
from slipway.progress import track
from slipway.recipe import Serve


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("requests", type=int, nargs="?", default=500)
    arguments = parser.parse_args()
    bundle = Bundle.open(arguments.bundle)
    text = bundle.spec.checks[0].text
    with tempfile.TemporaryDirectory() as directory:
        repository = serving.write_repository(bundle, Path(directory) / "repository", Serve())
        with serving.start(repository.path, Serve(port=0)) as endpoint:
            doors = {
                (protocol, door): asker(address, endpoint.model, protocol, text)
                for protocol in ("http", "grpc")
                for door, address in {"triton": behind(endpoint, protocol), "envoy": endpoint.address}.items()
            }
            taken = measure(doors, arguments.requests)
            show(taken, endpoint, arguments.requests)


def asker(address: str, model: str, protocol: str, text: str) -> Callable[[], object]:
    client = serving.Client(address, model, "http" if protocol == "http" else "grpc")
    return lambda: client.classify([text])


def behind(endpoint: serving.Endpoint, protocol: str) -> str:
    """Triton's own address, from the configuration that Envoy was given."""
    config = json.loads((endpoint.access_log.parent / "frontdoor" / "clusters.json").read_text())
    [cluster] = [c for c in config["resources"] if c["name"] == f"stable_{protocol}"]
    host = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]
    return f"127.0.0.1:{host['address']['socket_address']['port_value']}"


def measure(doors: dict[tuple[str, str], Callable[[], object]], requests: int) -> dict[tuple[str, str], list[float]]:
    taken: dict[tuple[str, str], list[float]] = {door: [] for door in doors}
    for ask in doors.values():
        for _ in range(20):
            ask()
    for _ in track(range(requests), "Asking"):
        for door, ask in doors.items():
            started = time.perf_counter()
            ask()
            taken[door].append(1000 * (time.perf_counter() - started))
    return taken


def show(taken: dict[tuple[str, str], list[float]], endpoint: serving.Endpoint, requests: int) -> None:
    about = endpoint.describe()
    table = Table(
        title=f"One caller, one text, {requests} requests each; {about['model']}, {about['instances']} instances × "
        f"{about['threads']} thread(s), {platform.processor() or platform.machine()}"
    )
    for column in ("protocol", "p50 ms direct", "p50 ms through Envoy", "ratio", "p99 ms direct", "p99 ms through"):
        table.add_column(column, justify="right")
    for protocol in ("http", "grpc"):
        direct, through = (np.percentile(taken[protocol, door], [50, 99]) for door in ("triton", "envoy"))
        table.add_row(
            protocol, f"{direct[0]:.2f}", f"{through[0]:.2f}", f"{through[0] / direct[0]:.2f}",
            f"{direct[1]:.2f}", f"{through[1]:.2f}",
        )  # fmt: skip
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
