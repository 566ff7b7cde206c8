"""A new version takes over, or doesn't, while requests keep coming."""

import contextlib
import json
import signal
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

import serving
from serving.frontdoor.credentials import new_key
from serving.protocol import inference_body
from serving.rollout.endpoints import RunningEndpoint, find_endpoint
from serving.rollout.promote import RolledBackError, abort, promote, status
from serving.server.envoy_admin import EnvoyAdmin
from slipway.bundle import Bundle
from slipway.errors import ArtifactError, ServingError
from slipway.recipe import Rollout, Serve
from tests import tiny_variants
from tests.serving.conftest import Owner, eventually, owners
from tests.serving.frontdoor.authority import CertificateAuthority
from tests.serving.open_loop import Load, answers
from tests.serving.test_lifetime import STUB, TRITON
from tests.tiny_bundle import CHECK_TEXTS, write_tiny_bundle

pytestmark = [pytest.mark.integration, pytest.mark.slow]

Own = Callable[..., Owner]
TEXTS = [*CHECK_TEXTS, "It arrives broken.", "monday"]
QUICK = Rollout(steps=[50, 100], bake_s=1.0, min_requests=30, max_latency_ratio=20.0)
ENDLESS = QUICK.model_copy(update={"bake_s": 600.0})
PROMOTER = """
import sys
from pathlib import Path
from serving.rollout.endpoints import find_endpoint
from serving.rollout.promote import promote
from slipway.errors import SlipwayError
from slipway.recipe import Rollout

try:
    promote(find_endpoint(None, sys.argv[1]), Path(sys.argv[2]), Rollout.model_validate_json(sys.argv[3]), print)
except SlipwayError as error:
    print(error)
    sys.exit(error.exit_code)
"""


@dataclass
class Versions:
    """Repositories to promote."""

    newer: Path
    right: dict[int, dict[str, str]]
    """What versions 1 (the tiny bundle) and 2 (the newer one) answer."""


@pytest.fixture(scope="module")
def versions(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Versions:
    folder = tmp_path_factory.mktemp("newer")
    newer = tiny_variants.newer(folder / "bundle")
    repository = serving.write_repository(newer, folder / "repository", Serve(port=0, instances=2)).path
    return Versions(repository, {1: answers(bundle, TEXTS), 2: answers(newer, TEXTS)})


@pytest.fixture(scope="module")
def standing(repository: Path) -> Iterator[Owner]:
    """An endpoint that refuses, one after the other, what the tests want to promote."""
    with owners(repository) as own:
        yield own()


def endpoint_of(owner: Owner) -> RunningEndpoint:
    return find_endpoint(None, owner.address)


def test_a_new_version_takes_over_under_load_and_no_request_is_lost(own: Own, versions: Versions) -> None:
    owner = own()
    told: list[str] = []
    with Load(owner.address, "tiny", TEXTS) as load:
        assert eventually(lambda: load.count("answered") > 20)
        said = promote(endpoint_of(owner), versions.newer, QUICK, told.append)
        after = len(load.outcomes)
        assert eventually(lambda: len(load.outcomes) > after + 40)
    assert said == "version 2 of tiny answers everybody."
    assert load.count("answered") == len(load.outcomes), load.story()
    assert load.wrong(versions.right) == []
    assert {one.version for one in load.outcomes[:20]} == {1}
    assert {one.version for one in load.outcomes[after:]} == {2}
    assert any("50 % of the requests" in line for line in told)
    assert endpoint_of(owner).version == 2
    assert len(owner.named(TRITON)) == 1
    [triton] = json.loads((owner.runtime / "scrape.json").read_text())["tritons"]
    assert triton["name"] == "stable"
    assert 'version="2"' in httpx.get(f"http://127.0.0.1:{triton['port']}/metrics").text
    assert not list(Path("/dev/shm").glob(f"*{owner.runtime.name}-1-*"))  # noqa: S108


def test_what_was_promoted_is_mended_as_what_was_served_first(own: Own, versions: Versions) -> None:
    owner = own()
    promote(endpoint_of(owner), versions.newer, QUICK, print)
    with Load(owner.address, "tiny", TEXTS, patience_s=20.0) as load:
        for part in (STUB, TRITON):
            owner.named(part)[0].kill()
            sent = len(load.outcomes)
            assert eventually(lambda sent=sent: load.count("answered") > sent + 40), load.story()
    assert load.count("answered") == len(load.outcomes), load.story()
    assert load.wrong(versions.right) == []
    assert load.answered_by(2) == len(load.outcomes)


def test_a_canary_gets_its_share_over_both_protocols_and_can_be_taken_back(own: Own, versions: Versions) -> None:
    owner = own()
    with Load(owner.address, "tiny", TEXTS, rate=80) as load:
        with promoting(owner, versions.newer, ENDLESS) as promotion:
            assert eventually(lambda: load.answered_by(2) > 60), load.story()
            for protocol in ("http", "grpc"):
                seen = {one.version for one in load.outcomes if one.protocol == protocol}
                assert {1, 2} <= seen
            assert "version 2: canary, 50 % of the requests" in status(endpoint_of(owner))
            assert "version 2 is taken back" in abort(endpoint_of(owner))
            assert promotion.wait(30) == 1
        sent = len(load.outcomes)
        assert eventually(lambda: len(load.outcomes) > sent + 40)
    assert load.count("answered") == len(load.outcomes), load.story()
    assert load.wrong(versions.right) == []
    assert {one.version for one in load.outcomes[sent:]} == {1}
    assert "aborted" in status(endpoint_of(owner))


def test_keys_that_broke_hold_no_candidate_in_traffic(own: Own, versions: Versions, tmp_path: Path) -> None:
    _, key = new_key(tmp_path / "keys.json", "web", ["predict:tiny"])
    owner = own(auth={"keys": str(tmp_path / "keys.json")})
    with promoting(owner, versions.newer, ENDLESS) as promotion:
        assert eventually(lambda: "canary, 50 %" in status(endpoint_of(owner)))
        (tmp_path / "keys.json").write_text("{")
        abort(endpoint_of(owner))
        assert promotion.wait(30) == 1
    with httpx.Client(base_url=f"http://{owner.address}/v2/models/tiny", headers={"x-api-key": key}) as client:
        assert {client.post("generate", json={"text": "good"}).json()["model_version"] for _ in range(10)} == {"1"}


def test_a_certificate_is_renewed_while_a_canary_runs_and_no_request_is_lost(
    own: Own, versions: Versions, tmp_path: Path
) -> None:
    authority = CertificateAuthority("authority")
    certificate, private = authority.issue("server", tmp_path)
    ca = authority.write(tmp_path / "ca.pem")
    owner = own(tls={"certificate": str(certificate), "key": str(private)})

    def served() -> str:
        return ssl.get_server_certificate(("127.0.0.1", owner.port)).strip()

    with Load(owner.address, "tiny", TEXTS, ca=ca) as load, promoting(owner, versions.newer, ENDLESS) as promotion:
        assert eventually(lambda: load.answered_by(2) > 20), load.story()
        assert served() == certificate.read_text().strip()
        for _ in range(2):
            # One file after the other: between the two they are no pair.
            authority.issue("server", tmp_path)
            assert eventually(lambda: served() == certificate.read_text().strip())
        sent, seen = len(load.outcomes), load.answered_by(2)
        assert eventually(lambda: load.answered_by(2) > seen + 20 and len(load.outcomes) > sent + 40), load.story()
        assert "version 2: canary, 50 % of the requests" in status(endpoint_of(owner))
        abort(endpoint_of(owner))
        assert promotion.wait(30) == 1
    assert load.count("answered") == len(load.outcomes), load.story()
    assert load.wrong(versions.right) == []


def test_a_shadow_gets_copies_and_answers_nobody(own: Own, versions: Versions) -> None:
    owner = own()
    admin = EnvoyAdmin(owner.runtime / "envoy.sock")

    def copies() -> int:
        found = admin.counters(r"^cluster\.v2_(http|grpc)\.upstream_rq_2xx$")
        return min(found.values()) if len(found) == 2 else 0

    shadow = ENDLESS.model_copy(update={"shadow": 100})
    with Load(owner.address, "tiny", TEXTS) as load, promoting(owner, versions.newer, shadow) as promotion:
        assert eventually(lambda: copies() > 20)
        assert "shadow, copies of 100 %" in status(endpoint_of(owner))
        abort(endpoint_of(owner))
        promotion.wait(30)
    assert load.count("answered") == len(load.outcomes), load.story()
    assert load.answered_by(1) == len(load.outcomes)


@contextlib.contextmanager
def promoting(owner: Owner, path: Path, rollout: Rollout) -> Iterator[subprocess.Popen[str]]:
    """A process that promotes, as `slipway promote` does."""
    arguments = [owner.address, str(path), rollout.model_dump_json()]
    process = subprocess.Popen([sys.executable, "-c", PROMOTER, *arguments], stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_a_version_that_fails_requests_is_rolled_back(own: Own, bundle: Bundle, tmp_path: Path) -> None:
    broken = tiny_variants.with_a_short_vocabulary(bundle, tmp_path / "bundle")
    owner = own()
    texts = [*CHECK_TEXTS, tiny_variants.UNKNOWN_TO_SHORT_VOCABULARY]
    with Load(owner.address, "tiny", texts) as load:
        with pytest.raises(RolledBackError, match=r"requests failed .*Version 1 serves on") as caught:
            promote(endpoint_of(owner), broken.path, QUICK, print)
        sent = len(load.outcomes)
        assert eventually(lambda: len(load.outcomes) > sent + 40)
    assert caught.value.exit_code == 2
    failed = [one for one in load.outcomes if one.kind != "answered"]
    assert {one.text for one in failed} == {tiny_variants.UNKNOWN_TO_SHORT_VOCABULARY}, load.story()
    assert {one.protocol for one in failed} == {"http", "grpc"}
    assert all(one.kind == "answered" for one in load.outcomes[sent:]), load.story()
    assert load.wrong(dict.fromkeys((1, 2), answers(bundle, texts))) == []


def test_a_slow_version_is_rolled_back(own: Own, bundle: Bundle, tmp_path: Path) -> None:
    slow = tiny_variants.slow(bundle, tmp_path / "bundle")
    owner = own(threads=1)
    bounds = QUICK.model_copy(update={"max_latency_ratio": 2.0})
    with Load(owner.address, "tiny", TEXTS, rate=10) as load, pytest.raises(RolledBackError, match=r"p\d+ .* ms, the"):
        promote(endpoint_of(owner), slow.path, bounds, print)
    assert load.count("answered") == len(load.outcomes), load.story()


def test_a_candidate_that_dies_is_rolled_back_and_the_stable_version_answers_on(own: Own, versions: Versions) -> None:
    owner = own()
    with Load(owner.address, "tiny", TEXTS, patience_s=20.0) as load:
        with promoting(owner, versions.newer, ENDLESS) as promotion:
            assert eventually(lambda: load.answered_by(2) > 20), load.story()
            newest = max(owner.named(TRITON), key=lambda process: process.create_time())
            newest.kill()
            assert promotion.wait(30) == 2
        assert load.stop() is None
    assert load.count("answered") == len(load.outcomes), load.story()
    assert load.wrong(versions.right) == []
    assert "its server died" in status(endpoint_of(owner))
    assert len(owner.named(TRITON)) == 1


def test_a_version_that_disagrees_is_rolled_back_before_it_answers_anybody(
    standing: Owner, bundle: Bundle, tmp_path: Path
) -> None:
    opposite = tiny_variants.opposite(tmp_path / "bundle")
    disagrees = pytest.raises(RolledBackError, match=r"same label to \d+ of \d+ texts .* at least 80.0% must agree")
    with Load(standing.address, "tiny", TEXTS) as load, disagrees:
        promote(endpoint_of(standing), opposite.path, QUICK, print)
    assert load.count("answered") == len(load.outcomes), load.story()
    assert load.answered_by(1) == len(load.outcomes)


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (tiny_variants.unreadable, "it can't be served: tritonserver ended with exit code 1"),
        (tiny_variants.with_wrong_checks, "the bundle says"),
        (tiny_variants.with_other_labels, "has the labels"),
        (tiny_variants.with_another_task, "has the task 'token-classification'"),
    ],
)
def test_a_bad_model_never_replaces_a_good_one(
    standing: Owner, bundle: Bundle, tmp_path: Path, broken: Callable[[Bundle, Path], Bundle], reason: str
) -> None:
    with pytest.raises(ServingError, match=reason) as caught:
        promote(endpoint_of(standing), broken(bundle, tmp_path / "bundle").path, QUICK, print)
    assert caught.value.exit_code == 1
    with serving.Client(standing.address, "tiny") as client:
        assert client.classify(["good"])[0].label == "positive"
    assert len(standing.named(TRITON)) == 1


def test_a_repository_that_was_tampered_with_is_refused(standing: Owner, versions: Versions, tmp_path: Path) -> None:
    newer = tiny_variants.newer(tmp_path / "bundle")
    repository = serving.write_repository(newer, tmp_path / "repository", Serve(port=0)).path
    model = next(repository.rglob("model.onnx"))
    model.write_bytes(model.read_bytes()[:-1] + b"!")
    with pytest.raises(ArtifactError, match=r"model\.onnx has changed"):
        promote(endpoint_of(standing), repository, QUICK, print)


def test_another_model_is_refused(standing: Owner, tmp_path: Path) -> None:
    other = write_tiny_bundle(tmp_path / "bundle", "other")
    with pytest.raises(ServingError, match=r"is the model 'other', and the endpoint at .* serves 'tiny'"):
        promote(endpoint_of(standing), other.path, QUICK, print)


def test_a_second_promotion_waits_for_its_turn(standing: Owner, versions: Versions) -> None:
    with promoting(standing, versions.newer, ENDLESS):
        assert eventually(lambda: "canary" in status(endpoint_of(standing)))
        with pytest.raises(ServingError, match="another version is being promoted"):
            promote(endpoint_of(standing), versions.newer, QUICK, print)
        abort(endpoint_of(standing))
        assert eventually(lambda: "aborted" in status(endpoint_of(standing)))


def test_who_asks_may_go_away_and_the_promotion_goes_on(own: Own, versions: Versions) -> None:
    owner = own()
    with promoting(owner, versions.newer, QUICK):
        assert eventually(lambda: "canary" in status(endpoint_of(owner)))
    assert eventually(lambda: endpoint_of(owner).version == 2)


def test_an_endpoint_that_is_stopped_while_it_promotes_leaves_nothing(own: Own, versions: Versions) -> None:
    owner = own()
    with promoting(owner, versions.newer, ENDLESS):
        assert eventually(lambda: "canary" in status(endpoint_of(owner)))
        owner.process.send_signal(signal.SIGTERM)
        assert owner.process.wait(60) == 0
    assert owner.leftovers() == []


def test_the_command_promotes_a_bundle_and_tells_how_it_stands(own: Own, tmp_path: Path) -> None:
    newer = tiny_variants.newer(tmp_path / "bundle")
    owner = own()
    slipway = [sys.executable, "-m", "slipway", "promote", "--address", owner.address]
    promoted = subprocess.run(
        [*slipway, str(newer.path), "--canary", "10", "--bake", "1s"], capture_output=True, text=True, check=False
    )
    assert promoted.returncode == 0, promoted.stderr
    assert "version 2 of tiny answers everybody." in promoted.stdout
    assert "10 % of the requests" in promoted.stderr
    told = subprocess.run([*slipway, "--status"], capture_output=True, text=True, check=True).stdout
    assert f"tiny at {owner.address}: version 2, {tmp_path}/repository" in told
    idle = subprocess.run([*slipway, "--abort"], capture_output=True, text=True, check=False)
    assert (idle.returncode, idle.stderr) == (1, "error: nothing is being promoted.\n")
    answer = httpx.post(f"http://{owner.address}/v2/models/tiny/infer", json=inference_body("monday")).json()
    assert answer["model_version"] == "2"


@pytest.mark.unit
def test_without_a_running_endpoint_there_is_nothing_to_promote_on() -> None:
    with pytest.raises(ServingError, match=r"no endpoint of nowhere is running .* Start one with slipway serve"):
        find_endpoint("nowhere", None)


def test_a_version_in_another_layout_takes_over_too(own: Own, bundle: Bundle, tmp_path: Path) -> None:
    section = Serve(port=0, layout="ensemble", instances=1)
    ensemble = serving.write_repository(bundle, tmp_path / "repository", section).path
    owner = own()
    promote(endpoint_of(owner), ensemble, QUICK, print)
    with Load(owner.address, "tiny", CHECK_TEXTS, patience_s=20.0) as load:
        for stub in owner.named(STUB):
            stub.kill()
        assert eventually(lambda: load.count("answered") > 40), load.story()
    assert load.count("answered") == len(load.outcomes), load.story()
    assert load.wrong({2: answers(bundle, CHECK_TEXTS)}) == []
