"""Whatever breaks under load: no answer is wrong, none is lost to a caller who tries again, nothing is left over."""

import contextlib
import json
import random
import re
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest

import serving
from serving.protocol import inference_body
from serving.rollout.endpoints import find_endpoint
from serving.rollout.promote import abort, promote
from serving.server.mending import Budget
from serving.server.runtime import SHARED_MEMORY
from slipway.bundle import Bundle
from slipway.errors import ServingError
from slipway.recipe import Rollout, Serve
from tests.serving.conftest import Owner, eventually
from tests.serving.open_loop import Load, answers, restored
from tests.serving.test_lifetime import ENVOY, STUB, SUPERVISOR, TRITON, is_accepting
from tests.serving.test_rollout import ENDLESS, promoting
from tests.tiny_bundle import CHECK_TEXTS
from tests.tiny_variants import newer, unreadable

pytestmark = [pytest.mark.integration, pytest.mark.slow]

Own = Callable[..., Owner]
_MORE = 20
_PATIENCE_S = 20.0


@pytest.fixture(scope="module")
def right(bundle: Bundle) -> dict[int, dict[str, str]]:
    return {1: answers(bundle, CHECK_TEXTS)}


def ended_well(owner: Owner) -> str:
    """End it; what it said."""
    owner.process.send_signal(signal.SIGTERM)
    _, errors = owner.process.communicate(timeout=60)
    assert owner.process.returncode == 0, errors
    assert owner.leftovers() == []
    return errors


@pytest.mark.parametrize(
    ("part", "said"),
    [
        (STUB, "model processes died; the model was loaded again in"),
        (TRITON, "tritonserver was killed by SIGKILL; Triton was started again in"),
        (ENVOY, "envoy was killed by SIGKILL; it was started again in"),
    ],
)
def test_what_is_killed_is_restored_and_nobody_who_tries_again_is_left_without_an_answer(
    own: Own, right: dict[int, dict[str, str]], part: str, said: str
) -> None:
    owner = own()
    with Load(owner.address, "tiny", CHECK_TEXTS, patience_s=_PATIENCE_S) as load:
        assert eventually(lambda: load.count("answered") > _MORE)
        with restored(load):
            owner.named(part)[0].kill()
    assert load.count("answered") == len(load.outcomes), load.story()
    assert load.wrong(right) == []
    assert load.said_not_to_try_again() == [], load.story()
    assert regions_of_the_dead(owner) == []
    told = ended_well(owner)
    assert said in told
    assert told.count("again in") == 1


def regions_of_the_dead(owner: Owner) -> list[str]:
    """Shared memory of the endpoint that no living process of it has mapped."""
    mapped: set[str] = set()
    for process in owner.named(STUB) + owner.named(TRITON):
        with contextlib.suppress(psutil.Error):
            mapped |= {region.path for region in process.memory_maps()}
    return [str(file) for file in SHARED_MEMORY.glob(f"*{owner.runtime.name}*") if str(file) not in mapped]


def test_while_triton_starts_again_callers_are_refused_at_once_and_health_says_so(own: Own) -> None:
    owner = own()
    url = f"http://{owner.address}/v2/models/tiny/infer"
    [supervisor] = owner.named(SUPERVISOR)
    supervisor.suspend()
    owner.named(TRITON)[0].kill()
    assert eventually(lambda: httpx.get(f"http://{owner.address}/healthz").status_code == 503)
    answer = httpx.post(url, json=inference_body("good"))
    assert answer.status_code == 503
    assert "error" in answer.json()
    supervisor.resume()
    assert eventually(lambda: httpx.post(url, json=inference_body("good")).status_code == 200)


def test_a_triton_that_hangs_is_started_again(own: Own) -> None:
    owner = own(timeout_s=0.5)
    url = f"http://{owner.address}/v2/models/tiny/infer"
    owner.named(TRITON)[0].suspend()
    assert eventually(lambda: httpx.post(url, json=inference_body("good")).status_code == 504)
    assert eventually(lambda: httpx.post(url, json=inference_body("good"), timeout=30).status_code == 200, within=60)
    # The supervisor looks five times a second, and says then what it did.
    time.sleep(1.0)
    assert "Triton has not answered for 5.5 s; Triton was started again" in ended_well(owner)


def test_an_envoy_that_hangs_is_started_again(own: Own) -> None:
    owner = own(timeout_s=0.5)
    [hung] = owner.named(ENVOY)
    hung.suspend()

    def is_answering() -> bool:
        with contextlib.suppress(httpx.HTTPError):
            url = f"http://{owner.address}/v2/models/tiny/infer"
            return httpx.post(url, json=inference_body("good"), timeout=1).status_code == 200
        return False

    assert eventually(is_answering, within=60)
    assert hung not in owner.named(ENVOY)
    ended_well(owner)


def test_a_triton_that_keeps_dying_is_given_up_with_its_last_words(own: Own) -> None:
    owner = own()

    def kill_it() -> bool:
        for process in owner.named(TRITON):
            with contextlib.suppress(psutil.Error):
                process.kill()
        return owner.process.poll() is not None

    assert eventually(kill_it, within=90)
    _, errors = owner.process.communicate(timeout=30)
    assert owner.process.returncode == 1
    assert "giving up after 8 repairs" in errors
    assert "tritonserver was killed by SIGKILL" in errors
    assert owner.leftovers() == []


@pytest.mark.unit
def test_repairs_are_bounded_in_a_row_and_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    budget = Budget(most=2, healthy_s=3.0)
    for _ in range(5):
        budget.spend(lambda: "it died")
        budget.spend(lambda: "it died")
        clock[0] += 100.0
        budget.healthy()
        clock[0] += 3.0
    budget.spend(lambda: "it died")
    budget.healthy()
    clock[0] += 2.9
    budget.spend(lambda: "it died")
    with pytest.raises(ServingError, match=r"giving up after 2 repairs .* it died"):
        budget.spend(lambda: "it died")


def test_after_sigterm_everything_that_was_accepted_is_answered(own: Own, right: dict[int, dict[str, str]]) -> None:
    owner = own()
    with httpx.Client() as idle, Load(owner.address, "tiny", CHECK_TEXTS, rate=80) as load:
        assert idle.get(f"http://{owner.address}/healthz").status_code == 200
        assert eventually(lambda: load.count("answered") > _MORE)
        owner.process.send_signal(signal.SIGTERM)
        _, errors = owner.process.communicate(timeout=60)
    assert owner.process.returncode == 0, errors
    assert owner.leftovers() == []
    assert load.wrong(right) == []
    assert load.count("answered") + load.count("refused") == len(load.outcomes), load.story()


def test_connections_that_are_kept_are_told_to_close_and_new_ones_refused(own: Own) -> None:
    owner = own()
    url = f"http://{owner.address}/v2/models/tiny/infer"
    [triton] = owner.named(TRITON)
    with httpx.Client() as kept:
        assert kept.post(url, json=inference_body("good")).status_code == 200
        triton.suspend()
        found: list[httpx.Response] = []
        late = threading.Thread(target=lambda: found.append(kept.post(url, json=inference_body("good"), timeout=30)))
        late.start()
        assert eventually(lambda: owner.active_requests() == 1)
        owner.process.send_signal(signal.SIGTERM)
        assert eventually(lambda: not is_accepting(owner.address))
        triton.resume()
        late.join()
    assert found[0].status_code == 200, found[0].text
    assert found[0].headers["connection"] == "close"
    assert owner.process.wait(30) == 0


def test_what_a_stuck_model_does_not_answer_within_the_grace_time_is_refused_rather_than_cut(own: Own) -> None:
    owner = own(grace_s=1.0)
    url = f"http://{owner.address}/v2/models/tiny/infer"
    owner.named(TRITON)[0].suspend()
    found: list[httpx.Response] = []
    stuck = threading.Thread(target=lambda: found.append(httpx.post(url, json=inference_body("good"), timeout=30)))
    stuck.start()
    assert eventually(lambda: owner.active_requests() == 1)
    owner.process.send_signal(signal.SIGTERM)
    stuck.join()
    assert found[0].status_code == 503
    assert owner.process.wait(30) == 0
    assert owner.leftovers() == []


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A file system of its own, whose path is short enough for the sockets' names; only root may mount one."""
    place = Path(tempfile.mkdtemp(prefix="disk-"))
    options = ["-t", "tmpfs", "-o", "size=48m,mode=700", "tmpfs", str(place)]
    if subprocess.run(["mount", *options], capture_output=True, check=False).returncode:
        place.rmdir()
        pytest.skip("a file system can't be mounted here")
    yield place
    eventually(lambda: subprocess.run(["umount", str(place)], capture_output=True, check=False).returncode == 0)
    place.rmdir()


def fill(disk: Path) -> None:
    """Leave not a byte."""
    with contextlib.suppress(OSError), (disk / "filling").open("ab", buffering=0) as stream:
        while True:
            stream.write(b"\0" * 4096)


def test_a_full_disk_stops_neither_answers_nor_repairs(
    small_disk: Path, own: Own, right: dict[int, dict[str, str]], repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kills follow each other quickly: a model process that was started anew has inherited Triton's sockets."""
    owner = own(environment={"TMPDIR": str(small_disk)})
    assert owner.runtime.is_relative_to(small_disk)
    with Load(owner.address, "tiny", CHECK_TEXTS, patience_s=_PATIENCE_S) as load:
        fill(small_disk)
        with restored(load):
            owner.named(STUB)[0].kill()
        with restored(load):
            owner.named(TRITON)[0].kill()
        with restored(load):
            owner.named(ENVOY)[0].kill()
        monkeypatch.setattr("tempfile.tempdir", str(small_disk))
        with pytest.raises(ServingError, match="no space left to stage it"):
            promote(find_endpoint("tiny", owner.address), repository, Rollout(), print)
    assert load.count("answered") == len(load.outcomes), load.story()
    assert load.wrong(right) == []
    ended_well(owner)


def test_a_candidate_is_taken_back_from_callers_on_a_full_disk_too(
    small_disk: Path, own: Own, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = serving.write_repository(newer(tmp_path / "bundle"), tmp_path / "repository", Serve(instances=1)).path
    monkeypatch.setenv("TMPDIR", str(small_disk))
    monkeypatch.setattr("tempfile.tempdir", str(small_disk))
    owner = own()
    with Load(owner.address, "tiny", CHECK_TEXTS) as load, promoting(owner, repository, ENDLESS) as promotion:
        assert eventually(lambda: load.answered_by(2) > _MORE), load.story()
        fill(small_disk)
        abort(find_endpoint("tiny", owner.address))
        assert promotion.wait(30) == 1
        sent = len(load.outcomes)
        assert eventually(lambda: len(load.outcomes) > sent + _MORE)
    assert load.count("answered") == len(load.outcomes), load.story()
    assert {one.version for one in load.outcomes[sent:]} == {1}


def test_an_endpoint_that_does_not_fit_on_the_disk_is_refused_and_leaves_nothing(
    repository: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(small_disk))
    fill(small_disk)
    with pytest.raises(OSError, match="No space left"):
        serving.start(repository, Serve(port=0))
    assert not list(small_disk.glob("*/*/models"))


def test_an_unreadable_model_is_refused_with_what_triton_says(bundle: Bundle, tmp_path: Path) -> None:
    broken = unreadable(bundle, tmp_path / "bundle")
    repository = serving.write_repository(broken, tmp_path / "repository", Serve(port=0)).path
    with pytest.raises(ServingError, match=r"tritonserver ended with exit code 1(.|\n)*load failed for model 'tiny'"):
        serving.start(repository, Serve(port=0))


def test_the_scrape_file_says_where_metrics_are(own: Own) -> None:
    owner = own()
    content = json.loads((owner.runtime / "scrape.json").read_text())
    [triton] = content["tritons"]
    assert triton["name"] == "stable"
    assert "nv_inference_request_success" in httpx.get(f"http://127.0.0.1:{triton['port']}/metrics").text
    assert Path(content["envoy"]).is_socket()


def test_nothing_that_keeps_an_endpoint_up_reads_the_wall_clock() -> None:
    """A clock that jumps then restarts nothing and cuts no grace time short."""
    for room in ("server", "rollout"):
        for file in Path(serving.__file__).parent.joinpath(room).glob("*.py"):
            assert not re.search(r"time\.time\b|datetime|strftime", file.read_text()), file


def test_kills_at_random_moments_lose_nothing_for_who_tries_again(own: Own, right: dict[int, dict[str, str]]) -> None:
    chance = random.Random(7)
    owner = own()
    with Load(owner.address, "tiny", CHECK_TEXTS, rate=60, patience_s=30.0) as load:
        for _ in range(8):
            due = len(load.outcomes) + chance.randrange(120)
            assert eventually(lambda due=due: len(load.outcomes) >= due)
            for process in owner.named(chance.choice([STUB, STUB, TRITON, ENVOY]))[:1]:
                process.kill()
        with restored(load):
            pass
    assert load.count("answered") == len(load.outcomes), load.story()
    assert load.wrong(right) == []
    assert load.said_not_to_try_again() == [], load.story()
    ended_well(owner)
