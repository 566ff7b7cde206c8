"""Against the real Triton behind the real Envoy."""

from pathlib import Path

import pytest

import loadtests
import serving
from slipway.bundle import Bundle
from slipway.recipe import LoadTest, Serve, Slo
from slipway.verdict import Verdict

pytestmark = pytest.mark.integration


def test_the_served_bundle_gives_its_own_answers_over_both_protocols(bundle: Bundle, tmp_path: Path) -> None:
    section = Serve(port=0)
    repository = serving.write_repository(bundle, tmp_path / "repository", section)
    load = LoadTest(rate=50.0, duration_s=3.0, warmup_s=0.5, max_dispatch_lag_ms=1e9, slo=Slo(p99_ms=5000.0))
    with serving.start(repository.path, section) as endpoint:
        artifact = loadtests.run(bundle, endpoint.address, load, tmp_path / "verdict", endpoint=endpoint.describe())
    verdict = Verdict.model_validate(artifact.json("verdict.json"))
    assert verdict.outcome == "met", verdict.examples
    assert set(verdict.by_protocol) == {"grpc", "http"}
    assert verdict.failures == {}
