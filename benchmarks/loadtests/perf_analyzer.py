"""Do `slipway loadtest`'s percentiles agree with Triton's own perf_analyzer?

    python benchmarks/loadtests/perf_analyzer.py BUNDLE --rates 20 100

Serves BUNDLE and drives both clients at it in turn, several times over: Poisson arrivals at the same rate, gRPC, the
same texts. perf_analyzer is the binary in the wheel of tritonclient 2.48.0 (later ones have none), fetched once into a
cache. It talks to Triton past the front door, as it asks for the model's configuration, which the front door keeps
inside; so does Slipway's load test here.

Two differences are left. perf_analyzer counts latency from sending, ours from the schedule, so ours is compared both
ways; and its arrivals are another draw, so that what must agree is the distribution. Percentiles are over the pooled
requests of all repeats; beside the ratio stands the span over the repeats: the noise that it must be read against.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from loadtests.samples import read_samples
from slipway.assets.cache import cache_root
from slipway.bundle import Bundle
from slipway.recipe import LoadTest, Serve

WHEEL = "tritonclient==2.48.0"
LIBRARIES = {"libb64-*.so.0d": "libb64.so.0d", "libcudart-*.so.12*": "libcudart.so.12"}
"""What perf_analyzer is linked to and Triton's wheel happens to carry, under other names."""
_WINDOWS = 3
PERCENTILES = (50, 95, 99)


def binary(cache: Path) -> Path:
    """perf_analyzer, from `cache` or else from the package index."""
    found = cache / "perf_analyzer"
    if not found.is_file():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as scratch:
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
            command += ["--platform=manylinux1_x86_64", f"--dest={scratch}", WHEEL]
            subprocess.run(command, check=True)
            (wheel,) = Path(scratch).glob("*.whl")
            with zipfile.ZipFile(wheel) as archive:
                (name,) = [name for name in archive.namelist() if name.endswith("/bin/perf_analyzer")]
                partial = Path(archive.extract(name, scratch))
            partial.chmod(0o755)
            partial.rename(found)
    for pattern, name in LIBRARIES.items():
        (library,) = (Path(find_spec("pytriton").origin).parents[1] / "nvidia_pytriton.libs").glob(pattern)
        if not (cache / name).exists():
            shutil.copy(library, cache / name)
    return found


@contextmanager
def triton(bundle: Bundle) -> Iterator[tuple[str, str]]:
    """Serve `bundle`; yields Triton's own gRPC address and the model's name."""
    import psutil

    import serving

    with tempfile.TemporaryDirectory() as scratch:
        section = Serve(port=0)
        repository = serving.write_repository(bundle, Path(scratch) / "repository", section)
        with serving.start(repository.path, section) as endpoint:
            below = psutil.Process().children(recursive=True)
            (command,) = [process.cmdline() for process in below if process.name() == "tritonserver"]
            port = next(part.partition("=")[2] for part in command if part.startswith("--grpc-port"))
            yield f"127.0.0.1:{port}", endpoint.model


def theirs(analyzer: Path, address: str, model: str, texts: list[str], load: LoadTest) -> list[float]:
    """Latencies in ms that perf_analyzer measured, one for each request."""
    with tempfile.TemporaryDirectory() as scratch:
        data, export = Path(scratch) / "texts.json", Path(scratch) / "requests.json"
        data.write_text(json.dumps({"data": [{"text": [text]} for text in texts]}), encoding="utf-8")
        command: list[str | Path] = [analyzer, "-m", model, "-u", address, "-i", "grpc", "-a", "--max-threads=8"]
        command += [f"--request-rate-range={load.rate}:{load.rate}:1", "--request-distribution=poisson"]
        command += [f"--input-data={data}", f"--measurement-interval={int(load.duration_s / _WINDOWS * 1000)}"]
        # It measures until three windows agree; here any three do.
        command += ["--stability-percentage=999", f"--max-trials={_WINDOWS}", f"--profile-export-file={export}"]
        environment = os.environ | {"LD_LIBRARY_PATH": str(analyzer.parent)}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        if not export.is_file():
            raise SystemExit(f"perf_analyzer: {done.stdout}{done.stderr}")
        # It writes the answers' bytes into its JSON as they are; only the times are wanted, and they are numbers.
        written = export.read_text(encoding="latin-1")
        times = re.findall(r'\{"timestamp":(\d+),.*?"response_timestamps":\[(\d*)', written, re.DOTALL)
    assert times, written[:2000]
    return [(int(answered) - int(sent)) / 1e6 for sent, answered in times if answered]


def ours(bundle: Bundle, address: str, load: LoadTest) -> dict[str, list[float]]:
    """Latencies in ms of the load test, from the schedule and from sending."""
    import loadtests

    with tempfile.TemporaryDirectory() as scratch:
        verdict = loadtests.run(bundle, address, load, Path(scratch) / "verdict")
        samples = read_samples(verdict.path / "samples.parquet").to_pylist()
    measured = [sample for sample in samples if not sample["warmup"]]
    assert all(sample["outcome"] == "ok" for sample in measured), [s for s in measured if s["outcome"] != "ok"][:3]
    return {kind: [sample[f"{kind}_ms"] for sample in measured] for kind in ("latency", "service")}


def report(rate: float, runs: dict[str, list[list[float]]]) -> dict[str, Any]:
    """Percentiles side by side, printed and returned."""
    requests = {name: sum(map(len, each)) for name, each in runs.items()}
    print(f"\n{rate:g} requests/s; requests: {', '.join(f'{name} {count}' for name, count in requests.items())}")
    print(f"{'ms':>6}" + "".join(f" {name:>28}" for name in runs) + f" {'sent / theirs':>14}")
    figures: dict[str, Any] = {"rate": rate, "requests": requests}
    for percent in PERCENTILES:
        pooled = {name: float(np.percentile(np.concatenate(each), percent)) for name, each in runs.items()}
        cells = []
        for name, each in runs.items():
            spans = [float(np.percentile(run, percent)) for run in each]
            cells.append(f"{pooled[name]:8.2f} ({min(spans):.2f}–{max(spans):.2f})")
        ratio = pooled["from sending"] / pooled["perf_analyzer"]
        print(f"{f'p{percent}':>6}" + "".join(f" {cell:>28}" for cell in cells) + f" {ratio:14.3f}", flush=True)
        figures[f"p{percent}"] = pooled
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--rates", type=float, nargs="+", default=[20.0, 100.0])
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--repeats", type=int, default=4)
    parser.add_argument("--cache", type=Path, default=cache_root() / "perf_analyzer-2.48.0")
    parser.add_argument("--json", action="store_true", help="the figures once more, as the last line")
    options = parser.parse_args()
    analyzer = binary(options.cache)
    bundle = Bundle.open(options.bundle)
    texts = pq.read_table(options.bundle / "expected.parquet")["text"].to_pylist()
    load = os.getloadavg()[0]
    print(f"{os.cpu_count()} cores, load average {load:.1f}, {options.repeats} × {options.seconds:g} s each, in turn")
    figures = []
    with triton(bundle) as (address, model):
        for rate in options.rates:
            runs: dict[str, list[list[float]]] = {"from the schedule": [], "from sending": [], "perf_analyzer": []}
            for repeat in range(options.repeats):
                load = LoadTest(rate=rate, duration_s=options.seconds, seed=repeat, protocols=["grpc"])
                found = ours(bundle, address, load)
                runs["from the schedule"].append(found["latency"])
                runs["from sending"].append(found["service"])
                runs["perf_analyzer"].append(theirs(analyzer, address, model, texts, load))
            figures.append(report(rate, runs))
    if options.json:
        print(json.dumps(figures))


if __name__ == "__main__":
    main()
