"""Against the real Triton behind the real Envoy."""

from pathlib import Path

import pytest

import loadtests
import serving
from slipway.bundle import Bundle
from slipway.recipe import LoadTest, Serve
from slipway.verdict import Verdict

pytestmark = [pytest.mark.integration, pytest.mark.slow]


def test_the_served_bundle_gives_its_own_answers_however_it_is_asked(bundle: Bundle, tmp_path: Path) -> None:
    section = Serve(port=0)
    repository = serving.write_repository(bundle, tmp_path / "repository", section)
    common = {"rate": 80.0, "duration_s": 1.5, "warmup_s": 0.3, "max_dispatch_lag_ms": 1e9, "slo": {"p99_ms": 5000.0}}
    loads = {
        "single": LoadTest.model_validate(common),
        "batches": LoadTest.model_validate(common | {"batch_size": {1: 1, 4: 1}, "traffic": "cache-busting"}),
        "generate": LoadTest.model_validate(common | {"protocols": ["generate"], "traffic": "hot-keys"}),
    }
    with serving.start(repository.path, section) as endpoint:
        for name, load in loads.items():
            artifact = loadtests.run(bundle, endpoint.address, load, tmp_path / name, page=False)
            verdict = Verdict.model_validate(artifact.json("verdict.json"))
            assert verdict.outcome == "met", verdict.examples
            assert set(verdict.by_protocol) == set(load.protocols)
            assert verdict.failures == {}
