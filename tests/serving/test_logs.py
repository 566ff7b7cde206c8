"""Logs as JSON lines: everything that is said, masked, with the levels of the processes that said it."""

import io
import json
import logging
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from serving.observability import logs
from serving.observability.logs import Relay, log_json
from serving.protocol import inference_body
from serving.server.triton import free_ports
from slipway.bundle import Bundle
from slipway.progress import complain, say
from tests.serving.conftest import eventually

pytestmark = [pytest.mark.unit]

RECIPE = """
name: tiny
base: {{model: "file:base"}}
data: {{source: "file:data.csv"}}
serve: {{port: {port}, auth: {{keyless: loopback}}, observe: {{logs: json}}}}
"""

Lines = Callable[[], list[dict[str, str]]]


@pytest.fixture
def lines() -> Iterator[Lines]:
    stream = io.StringIO()
    end = log_json(stream, model="tiny")
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    end()


def test_what_is_said_is_one_object_a_line(lines: Lines) -> None:
    say("tiny is served\nat 127.0.0.1:8080")
    complain("port 8080 is in use.")
    said, complained = lines()
    assert said["message"] == "tiny is served\nat 127.0.0.1:8080"
    assert (said["level"], said["logger"], said["model"]) == ("INFO", "slipway", "tiny")
    assert said["time"].endswith("+00:00")
    assert (complained["level"], complained["message"]) == ("ERROR", "port 8080 is in use.")


def test_messages_of_other_packages_are_masked_and_tracebacks_left_out(lines: Lines) -> None:
    try:
        int("call 13800138000")
    except ValueError:
        logging.getLogger("other").exception("failed for %s", "zhang@example.com")
    [line] = lines()
    assert line["message"] == "failed for <EMAIL> (ValueError)"
    assert "13800138000" not in json.dumps(line)


def test_lines_of_triton_and_envoy_are_followed_with_their_levels(lines: Lines, tmp_path: Path) -> None:
    triton, envoy = tmp_path / "tritonserver.log", tmp_path / "envoy.log"
    triton.write_text(
        "I1124 21:05:09.123456 4711 server.cc:674] \n+-----+\n| a |\n"
        "E1124 21:05:09.123456 4711 http_server.cc:12] bad request of 13800138000\n"
        "Traceback of a stub\nhalf a li",
        encoding="utf-8",
    )
    envoy.write_text("[2026-11-24 21:00:00.123][4711][warning][config] [source/x.cc:1] odd\n", encoding="utf-8")
    (tmp_path / "access.log").write_text('{"status": 200}\n', encoding="utf-8")
    relay = Relay(tmp_path)
    try:
        assert eventually(lambda: len(lines()) == 4)
        with triton.open("a", encoding="utf-8") as stream:
            stream.write("ne\n")
        assert eventually(lambda: len(lines()) == 5)
    finally:
        relay.stop()
    said = {(line["logger"], line["level"], line["message"]) for line in lines()}
    assert ("slipway.triton", "ERROR", "http_server.cc:12: bad request of <PHONE>") in said
    assert ("slipway.triton", "INFO", "half a line") in said
    assert ("slipway.envoy", "WARNING", "config: odd") in said


def test_a_flood_is_cut_between_lines_so_that_all_of_it_is_masked(
    lines: Lines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "_MOST_AT_A_TIME", 24)
    (tmp_path / "supervisor.log").write_text("0123456789 13800138000\n13800138000 电话\n", encoding="utf-8")
    relay = Relay(tmp_path)
    try:
        assert eventually(lambda: len(lines()) == 2)
        with (tmp_path / "supervisor.log").open("a", encoding="utf-8") as stream:
            stream.write("a line of 13800138000 and 13800138000\nnext\n")
        assert eventually(lambda: len(lines()) == 4)
    finally:
        relay.stop()
    said = [line["message"] for line in lines()]
    assert said == ["0123456789 <PHONE>", "<PHONE> 电话", "a line of more than 24 bytes was left out", "next"]


def test_after_the_end_people_read_sentences_again(capsys: pytest.CaptureFixture[str]) -> None:
    stream = io.StringIO()
    log_json(stream)()
    say("hello")
    assert stream.getvalue() == ""
    assert capsys.readouterr().err == "hello\n"


@pytest.mark.integration
def test_an_endpoint_says_everything_as_json_and_so_does_its_failure(bundle: Bundle, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        outcomes = []
        for port in (0, taken.getsockname()[1]):
            recipe.write_text(RECIPE.format(port=port), encoding="utf-8")
            command = [sys.executable, "-m", "slipway", "serve", str(bundle.path), "--recipe", str(recipe)]
            command += ["--repository", str(tmp_path / "repository")]
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            assert process.stdout is not None
            if port == 0:
                assert process.stdout.readline().startswith("curl")
                process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=60)
            outcomes.append((process.returncode, [json.loads(line) for line in errors.splitlines()]))
    (code, served), (failed, refused) = outcomes
    assert code == 0
    assert {line["logger"] for line in served} >= {"slipway", "slipway.triton"}
    assert any("is served at" in line["message"] for line in served)
    assert any("Started Metrics Service" in line["message"] for line in served)
    assert failed == 1
    assert (refused[-1]["level"], "in use" in refused[-1]["message"]) == ("ERROR", True)


@pytest.mark.integration
def test_the_access_log_can_go_to_the_standard_output(bundle: Bundle, tmp_path: Path) -> None:
    [port] = free_ports(1)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"serve: {{port: {port}, auth: {{keyless: loopback}}, observe: {{access_log: stdout}}}}", encoding="utf-8"
    )
    command = [sys.executable, "-m", "slipway", "serve", str(bundle.path), "--recipe", str(recipe)]
    command += ["--repository", str(tmp_path / "repository")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        assert any("is served at" in line for line in process.stderr)
        url = f"http://127.0.0.1:{port}/v2/models/tiny/infer"
        assert httpx.post(url, json=inference_body("good"), timeout=30).status_code == 200
    finally:
        process.send_signal(signal.SIGINT)
        written, _ = process.communicate(timeout=60)
    lines = [json.loads(line) for line in written.splitlines()]
    assert (lines[-1]["route"], lines[-1]["status"]) == ("infer", 200)
