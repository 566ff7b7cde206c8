"""A control plane of three processes: etcd, kube-apiserver and kube-controller-manager, of which the controllers of
Deployments, ReplicaSets and autoscalers run. There are no nodes: whoever starts it says which pods run.

The programs are those on PATH, of any release from 1.20. Debian has etcd, and the source of 1.20.2 from which the other
two were built for the traces that are kept (`make WHAT="cmd/kube-controller-manager cmd/kube-apiserver"`, ten minutes
of a core).
"""

import contextlib
import json
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

_TOKEN = "of-a-cluster-that-lives-for-minutes"  # noqa: S105 - on the loopback, and gone with it
_READY_S = 120.0
KUBECONFIG = "kubeconfig"
"""In the folder of a control plane, for kubectl and the like."""


@dataclass(frozen=True)
class Api:
    """The API server's REST interface, as an administrator."""

    url: str
    session: requests.Session

    def call(self, method: str, path: str, body: Any = None, content: str = "application/json") -> Any:
        """Answer of the server as JSON; raises `RuntimeError` with what it says if it refuses."""
        response = self.session.request(
            method, self.url + path, data=None if body is None else json.dumps(body), headers={"Content-Type": content}
        )
        if not response.ok:
            raise RuntimeError(f"{method} {path}: {response.status_code} {response.text[:500]}")
        return response.json()

    def patch(self, path: str, body: Any) -> Any:
        """A strategic merge."""
        return self.call("PATCH", path, body, "application/strategic-merge-patch+json")


@contextlib.contextmanager
def control_plane(folder: Path, flags: Sequence[str]) -> Iterator[Api]:
    """The API of a control plane in `folder`, with `flags` for kube-controller-manager; it ends with the context."""
    etcd, peer, secure = free_ports(3)
    key, _ = certificate(folder, "service-account")
    (folder / "tokens.csv").write_text(f'{_TOKEN},admin,admin,"system:masters"\n')
    api = Api(f"https://127.0.0.1:{secure}", requests.Session())
    api.session.headers["Authorization"] = f"Bearer {_TOKEN}"
    api.session.trust_env = False  # REQUESTS_CA_BUNDLE would be asked before `verify`
    api.session.verify = False
    requests.packages.urllib3.disable_warnings()
    kubeconfig = folder / KUBECONFIG
    kubeconfig.write_text(json.dumps(_kubeconfig(api.url)))
    commands = [
        [
            "etcd",
            f"--data-dir={folder / 'etcd'}",
            f"--listen-client-urls=http://127.0.0.1:{etcd}",
            f"--advertise-client-urls=http://127.0.0.1:{etcd}",
            f"--listen-peer-urls=http://127.0.0.1:{peer}",
            "--unsafe-no-fsync",
        ],
        [
            "kube-apiserver",
            f"--etcd-servers=http://127.0.0.1:{etcd}",
            f"--secure-port={secure}",
            "--bind-address=127.0.0.1",
            f"--cert-dir={folder}",
            f"--token-auth-file={folder / 'tokens.csv'}",
            "--authorization-mode=RBAC",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={key}",
            f"--service-account-signing-key-file={key}",
            "--service-cluster-ip-range=10.0.0.0/24",
            "--disable-admission-plugins=ServiceAccount",
        ],
        [
            "kube-controller-manager",
            f"--kubeconfig={kubeconfig}",
            "--controllers=deployment,replicaset,horizontalpodautoscaling",
            "--leader-elect=false",
            f"--secure-port={free_ports(1)[0]}",
            "--bind-address=127.0.0.1",
            f"--cert-dir={folder}",
            "--kube-api-qps=200",
            "--kube-api-burst=400",
            *flags,
        ],
    ]
    with contextlib.ExitStack() as stack:
        for command in commands:
            log = stack.enter_context((folder / f"{command[0]}.log").open("wb"))
            process = subprocess.Popen(command, stdout=log, stderr=log)
            stack.callback(_end, process)
            if command[0] == "kube-apiserver":
                _wait(api, process)
        yield api


def free_ports(count: int) -> list[int]:
    """Ports of the loopback that nobody listens on."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """A key and its own certificate for localhost."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    files = folder / f"{name}.key", folder / f"{name}.crt"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    for file, content in zip(files, (private, signed.public_bytes(serialization.Encoding.PEM)), strict=True):
        file.touch(mode=0o600)
        file.write_bytes(content)
    return files


def server_context(folder: Path) -> ssl.SSLContext:
    """TLS for an aggregated API."""
    key, signed = certificate(folder, "metrics")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(signed, key)
    return context


def programs() -> dict[str, str]:
    """The version that each program says, first of those that are needed."""
    found = {}
    for name in ("kube-controller-manager", "kube-apiserver", "etcd"):
        printed = subprocess.run([name, "--version"], capture_output=True, text=True, check=True).stdout
        found[name] = printed.splitlines()[0]
    return found


def _kubeconfig(url: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": url, "insecure-skip-tls-verify": True}}],
        "users": [{"name": "u", "user": {"token": _TOKEN}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "c",
    }


def _wait(api: Api, process: "subprocess.Popen[bytes]") -> None:
    deadline_s = time.monotonic() + _READY_S
    while True:
        with contextlib.suppress(requests.ConnectionError):
            if api.session.get(f"{api.url}/readyz").ok:
                return
        if process.poll() is not None or time.monotonic() > deadline_s:
            raise RuntimeError(f"{process.args[0]} didn't become ready; see its log")  # type: ignore[index]
        time.sleep(0.2)


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
