"""A load test from start to verdict: prepare the texts, have Locust send them, judge the samples.

Percentiles are computed here, from the file of samples. That takes 55 bytes a request, once, when the load is over;
while it goes on memory does not grow.
"""

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from loadtests.access import open_access
from loadtests.accompaniment import Accompaniment
from loadtests.address import resolve, tls_host
from loadtests.generator import Elsewhere, generate
from loadtests.page import verdict_page, write_page
from loadtests.plan import require_arrivals
from loadtests.preflight import wait_for_answers
from loadtests.reports import Report
from loadtests.slo import judge
from loadtests.texts import prepared_texts, write_texts
from slipway.artifacts import Artifact, inputs_digest, read_artifact, sha256_file, write_artifact
from slipway.bundle import Bundle
from slipway.recipe import LoadTest
from slipway.timeline import TIMELINE
from slipway.verdict import SAMPLES, VERDICT


def run(
    bundle: Bundle,
    address: str,
    section: LoadTest,
    out: Path,
    *,
    texts: Path | None = None,
    endpoint: dict[str, Any] | None = None,
    allow_remote: bool = False,
    inputs: str | None = None,
    versions: Mapping[str, Bundle] | None = None,
    progressed: Callable[[Report], None] | None = None,
    metrics_url: str | None = None,
    page: bool = True,
    elsewhere: Elsewhere | None = None,
    wait_s: float = 0.0,
) -> Artifact:
    """Drive `section`'s load at the endpoint at `address` and write the verdict artifact to `out`.

    The endpoint must serve `bundle`, whose answers it is held to. `texts` replaces the bundle's own texts; `endpoint`
    says what is known about the server, for the record; `inputs` replaces the digest of what the verdict depends on,
    for a caller who started the server and knows what it was made from; `versions` are the bundles of other versions of
    the model that may answer as well, while a canary runs. `progressed` is called twice a second with what the
    generator reports. `metrics_url` is where Triton's statistics are, found by itself on this machine; without `page`
    no report.html is drawn. `elsewhere` says where workers of other machines come. The endpoint may take `wait_s` until
    it answers. The artifact is returned whatever the verdict's outcome is.

    Raises `LoadTestError` if no load could be driven: nothing answers, the model is unknown there, no texts, or an
    address that isn't this machine's without `allow_remote`; `InvalidRunError` if a worker was lost under the load.
    Then nothing is written.
    """
    # Again in the generator; here for the sake of an early word about what can't work.
    numeric = resolve(address, allow_remote=allow_remote)
    access = open_access(section, tls_host(address))
    require_arrivals(section)
    prepared = prepared_texts(bundle, section, texts, versions)
    if wait_s:
        wait_for_answers(section, numeric, bundle.spec.name, access, prepared.sent[0], wait_s)
    described = {"address": address, "model": bundle.spec.name, **(endpoint or {})}
    inputs = inputs or _inputs(bundle, address, section, texts, versions or {})
    recipe = {"loadtest": section.model_dump(mode="json")}
    with (
        tempfile.TemporaryDirectory() as scratch,
        write_artifact(
            out, "verdict", name=bundle.spec.name, inputs=inputs, parents=[bundle.artifact], recipe=recipe
        ) as draft,
    ):
        # Not in the artifact: texts are the data of whoever owns them.
        sent = Path(scratch) / "texts.parquet"
        write_texts(prepared, sent)
        samples = draft.path / SAMPLES
        accompaniment = Accompaniment(section, numeric, bundle.spec.name, metrics_url)

        def report(progress: Report) -> None:
            accompaniment.progressed(progress)
            if progressed is not None:
                progressed(progress)

        with accompaniment:
            generate(bundle, address, section, sent, samples, report, allow_remote=allow_remote, elsewhere=elsewhere)
        timeline = accompaniment.timeline(samples)
        verdict = judge(samples, section, described, timeline.faults)
        draft.write_json(VERDICT, verdict.model_dump(mode="json"))
        draft.write_json(TIMELINE, timeline.model_dump(mode="json"))
        if page:
            write_page(draft.path, lambda: verdict_page(bundle.spec.name, verdict, timeline))
        draft.metrics.update(
            outcome=verdict.outcome,
            offered_rate=verdict.offered_rate,
            p50_ms=verdict.latency.p50,
            p95_ms=verdict.latency.p95,
            p99_ms=verdict.latency.p99,
            error_rate=verdict.error_rate,
        )
    return read_artifact(out, "verdict", verify=False)


def _inputs(bundle: Bundle, address: str, section: LoadTest, texts: Path | None, versions: Mapping[str, Bundle]) -> str:
    assets = {"address": address} | ({"texts": sha256_file(texts)} if texts else {})
    assets |= {f"version {version}": other.artifact.digest for version, other in versions.items()}
    if section.arrivals.process == "replay":
        assets["recording"] = sha256_file(Path(section.arrivals.source.removeprefix("file:")))
    return inputs_digest("loadtests", section.model_dump(mode="json"), [bundle.artifact], assets=assets)
