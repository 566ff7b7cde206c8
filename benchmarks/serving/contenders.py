"""The servers that are compared: how each is installed, started and asked.

Peers live in virtual environments of their own, so that none disturbs another or Slipway. Their versions are pinned:
without pins the resolver takes ten minutes, and a figure without a version is none.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil

from benchmarks.serving.processes import tree, used_s
from serving.server.triton import free_ports

PEERS = Path(__file__).parent / "peers"
TORCH, TRANSFORMERS = "torch==2.13.0", "transformers==4.57.6"
_READY_S = 180.0


@dataclass(frozen=True)
class Peer:
    """A server that a user would pick instead."""

    name: str
    requirements: tuple[str, ...]
    command: tuple[str, ...]
    """After the environment's python; {checkpoint} and {port} are filled in."""
    path: str
    body: Callable[[str], Any]
    label: Callable[[Any], str]
    """The label in an answer's JSON."""


PEERS_OF_SLIPWAY = (
    Peer(
        "LitServe, eager",
        ("litserve==0.2.19", TORCH, TRANSFORMERS),
        ("litserve_server.py", "{checkpoint}", "{port}"),
        "/predict",
        lambda text: {"text": text},
        lambda answer: str(answer["label"]),
    ),
    Peer(
        "FastAPI, eager",
        ("fastapi==0.121.3", "uvicorn[standard]==0.38.0", TORCH, TRANSFORMERS),
        ("fastapi_server.py", "{checkpoint}", "{port}"),
        "/predict",
        lambda text: {"text": text},
        lambda answer: str(answer["label"]),
    ),
    Peer(
        "BentoML, eager",
        ("bentoml==1.4.40", TORCH, TRANSFORMERS),
        ("-m", "bentoml", "serve", "bentoml_server:Classifier", "--host", "127.0.0.1", "--port", "{port}"),
        "/predict",
        lambda text: {"text": [text]},
        lambda answer: str(answer[0]["label"]),
    ),
    Peer(
        "Infinity",
        ("infinity-emb[server,torch]==0.0.78", TORCH, TRANSFORMERS),
        (
            "-c", "from infinity_emb.cli import cli; cli()", "v2", "--engine", "torch", "--device", "cpu",
            "--model-id", "{checkpoint}", "--served-model-name", "served", "--no-model-warmup",
            "--host", "127.0.0.1", "--port", "{port}", "--log-level", "warning",
        ),
        "/classify",
        lambda text: {"input": [text], "model": "served"},
        lambda answer: str(answer["data"][0][0]["label"]),
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Contender:
    """A server that runs."""

    name: str
    address: str
    path: str
    body: Callable[[str], Any]
    label: Callable[[Any], str]
    cpu_s: Callable[[], float]
    """Processor seconds that the server has used so far."""
    versions: dict[str, str] = field(default_factory=dict)

    def ask(self, text: str) -> str:
        """The label of one text."""
        response = httpx.post(f"http://{self.address}{self.path}", json=self.body(text), timeout=60)
        response.raise_for_status()
        return self.label(response.json())

    def order(self, texts: list[str]) -> dict[str, Any]:
        """For the asking process."""
        bodies = [json.dumps(self.body(text)) for text in texts]
        return {"protocol": "http", "address": self.address, "path": self.path, "bodies": bodies}


def install(peer: Peer, folder: Path) -> Path:
    """The Python of the peer's environment, made if it isn't there; raises `CalledProcessError` if it can't be."""
    venv = folder / peer.name.split(",")[0].lower()
    python, done = venv / "bin" / "python", venv / ".done"
    if not done.exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(venv)], check=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, *peer.requirements], check=True)
        done.touch()
    return python


@contextlib.contextmanager
def running(peer: Peer, python: Path, checkpoint: Path) -> Iterator[Contender]:
    """Start the peer; raises `RuntimeError` with the end of its log if it doesn't answer."""
    [port] = free_ports(1)
    words = [word.format(checkpoint=checkpoint, port=port) for word in peer.command]
    environment = {
        **os.environ,
        "CHECKPOINT": str(checkpoint),
        "PATH": f"{python.parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(PEERS),
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
        # PyTorch's threads spin while they wait, which on a shared machine costs their owner more than anybody.
        "OMP_WAIT_POLICY": "PASSIVE",
        "BENTOML_DO_NOT_TRACK": "True",
        "DO_NOT_TRACK": "1",
    }
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            [str(python), *words], cwd=PEERS, env=environment, stdout=log, stderr=log, start_new_session=True
        )
        try:
            contender = Contender(
                peer.name,
                f"127.0.0.1:{port}",
                peer.path,
                peer.body,
                peer.label,
                lambda: used_s(tree(psutil.Process(process.pid))),
                versions(python, peer),
            )
            await_ready(contender, process, log)
            yield contender
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def await_ready(contender: Contender, process: "subprocess.Popen[bytes]", log: Any) -> None:
    deadline = time.monotonic() + _READY_S
    said = "it doesn't answer"
    while time.monotonic() < deadline and process.poll() is None:
        try:
            contender.ask("ready?")
        except (httpx.HTTPError, KeyError, ValueError) as error:
            said = str(error)
            time.sleep(0.3)
        else:
            return
    log.seek(0)
    raise RuntimeError(f"{contender.name}: {said}\n{log.read()[-2000:]}")


def versions(python: Path, peer: Peer) -> dict[str, str]:
    names = [requirement.split("=")[0].split("[")[0] for requirement in peer.requirements]
    code = "import importlib.metadata as m, json, sys; print(json.dumps({n: m.version(n) for n in sys.argv[1:]}))"
    done = subprocess.run([str(python), "-c", code, *names], check=True, stdout=subprocess.PIPE, text=True)
    return dict(json.loads(done.stdout))
