"""Beside Triton's own perf_analyzer, on the real server."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from slipway.assets.cache import cache_root
from slipway.bundle import Bundle

pytestmark = [pytest.mark.integration, pytest.mark.slow]

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "loadtests" / "perf_analyzer.py"
CACHE = cache_root() / "perf_analyzer-2.48.0"


@pytest.mark.skipif(not (CACHE / "perf_analyzer").is_file(), reason="perf_analyzer was never fetched here")
def test_the_figures_are_of_the_same_size(bundle: Bundle) -> None:
    command = [sys.executable, str(BENCHMARK), str(bundle.path), "--rates", "40", "--seconds", "6", "--repeats", "1"]
    done = subprocess.run(
        [*command, "--cache", str(CACHE), "--json"], capture_output=True, text=True, check=True, timeout=200
    )
    (figures,) = json.loads(done.stdout.splitlines()[-1])
    assert figures["requests"]["perf_analyzer"] > 100
    # What another machine's load does to one of them is not for this test to judge.
    assert 0.1 < figures["p50"]["from sending"] / figures["p50"]["perf_analyzer"] < 10
