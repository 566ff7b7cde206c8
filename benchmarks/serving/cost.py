"""What serving costs before the first request: installed size, time to ready, resident memory.

    python -m benchmarks.serving.cost BUNDLE [--venv FOLDER] [--starts 5]

A virtual environment is made with nothing but `slipway[serve]` (unless FOLDER has one already), and the endpoint is
started from it, as on a serving machine. Ready means that both protocols have answered the bundle's own checks. Memory
is read when it is, and again after 2,000 requests of all lengths.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

REPOSITORY = Path(__file__).parents[2]
LARGEST = 8
REQUESTS = 2000

SIZES = """
import importlib.metadata as metadata, json
from pathlib import Path
sizes = {}
for one in metadata.distributions():
    files = [Path(one.locate_file(file)) for file in one.files or ()]
    sizes[f"{one.name} {one.version}"] = sum(file.stat().st_size for file in files if file.is_file())
print(json.dumps(sizes))
"""
START = """
import json, sys, time
began = time.perf_counter()
from pathlib import Path
import pyarrow.parquet as pq
import serving
from benchmarks.serving.processes import memory_mb
from slipway.bundle import EXPECTED
from slipway.recipe import Serve
bundle, repository, requests = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
with serving.start(repository, Serve(port=0)) as endpoint:
    ready = time.perf_counter() - began
    memory = [memory_mb(endpoint)]
    if requests:
        texts = pq.read_table(bundle / EXPECTED)["text"].to_pylist()
        with serving.Client(endpoint.address, endpoint.model) as client:
            for number in range(requests):
                client.classify([texts[number % len(texts)]])
        memory.append(memory_mb(endpoint))
print(json.dumps({"ready_s": ready, "memory": memory}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--venv", type=Path)
    parser.add_argument("--starts", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        venv = options.venv or Path(scratch) / "venv"
        make(venv)
        show_sizes(json.loads(run(venv, SIZES)))
        repository = Path(scratch) / "repository"
        write = "import sys, serving; from pathlib import Path; from slipway.bundle import Bundle; from slipway.recipe "
        write += "import Serve; serving.write_repository(Bundle.open(Path(sys.argv[1])), Path(sys.argv[2]), Serve())"
        run(venv, write, options.bundle, repository)
        starts = [
            json.loads(run(venv, START, options.bundle, repository, REQUESTS if last else 0))
            for last in [False] * (options.starts - 1) + [True]
        ]
    ready = [start["ready_s"] for start in starts]
    print(f"\nready after {np.median(ready):.2f} s (median of {len(ready)}, {min(ready):.2f} to {max(ready):.2f})")
    show_memory(starts[-1]["memory"])


def make(venv: Path) -> None:
    """An environment as docs/install.md has it."""
    if (venv / "bin" / "python").exists():
        return
    subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    pip = [str(venv / "bin" / "python"), "-m", "pip", "install", "--quiet"]
    subprocess.run([*pip, "-c", str(REPOSITORY / "constraints.txt"), f"{REPOSITORY}[serve]"], check=True)


def run(venv: Path, code: str, *arguments: object) -> str:
    """The last line that `code` prints there; the benchmarks' own modules are found, Slipway is the installed one."""
    with tempfile.TemporaryDirectory() as path:
        (Path(path) / "benchmarks").symlink_to(REPOSITORY / "benchmarks")
        done = subprocess.run(
            [str(venv / "bin" / "python"), "-c", code, *map(str, arguments)],
            env={"PATH": "/usr/bin:/bin", "PYTHONPATH": path},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
    return done.stdout.strip().rpartition("\n")[2]


def show_sizes(sizes: dict[str, int]) -> None:
    total = sum(sizes.values())
    assert not any(name.startswith(("torch ", "transformers ")) for name in sizes)
    print(f"{len(sizes)} packages, {total / 1e6:,.0f} MB installed\n\n| package | MB |\n| --- | ---: |")
    largest = sorted(sizes, key=lambda name: -sizes[name])[:LARGEST]
    for name in largest:
        print(f"| {name} | {sizes[name] / 1e6:,.0f} |")
    print(f"| {len(sizes) - LARGEST} others | {(total - sum(sizes[name] for name in largest)) / 1e6:,.0f} |")


def show_memory(moments: list[dict[str, list[float]]]) -> None:
    ready, used = moments
    print(f"\n| processes | | resident MB when ready | after {REQUESTS:,} requests | of it not shared (PSS) |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for kind, (count, resident, _) in ready.items():
        print(f"| {kind} | {count} | {resident:,.0f} | {used[kind][1]:,.0f} | {used[kind][2]:,.0f} |")
    totals = [sum(row[column] for row in moment.values()) for moment in moments for column in (1, 2)]
    print(f"| all | {sum(row[0] for row in ready.values())} | {totals[0]:,.0f} | {totals[2]:,.0f} | {totals[3]:,.0f} |")
    print(f"\nmeasured {time.strftime('%Y-%m-%d')}")


if __name__ == "__main__":
    main()
