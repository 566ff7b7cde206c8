"""What a real API server says to every manifest that the chart's tests render.

    python -m benchmarks.kubernetes.apply

needs etcd, kube-apiserver and kube-controller-manager on PATH, and helm as the tests have it. Each manifest is sent as
a dry run: defaults, validation and admission are the server's own, nothing is kept. A server that doesn't have a
version yet (policy/v1 before 1.21, batch/v1 of CronJobs before 1.21, autoscaling/v2 before 1.23) is sent the one
before, which has the same fields. Custom resources are left out: their servers are not there.

Then each set of values goes over the minimal one and back, for real, by `kubectl apply`: what can't be changed
(selectors, claims, Jobs) would be refused. The pod of `helm test` is left out, which Helm makes anew each time. Exit
code 1 if anything is refused.
"""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from benchmarks.kubernetes.control_plane import KUBECONFIG, Api, control_plane, programs
from tests.helm import loadtest_values
from tests.helm.cases import MATRIX, MINIMAL
from tests.helm.rendering import merged, render_chart
from tests.helm.tools import helm_binary, kubectl_binary

NAMESPACE = "models"
BEFORE = {
    ("policy/v1", "PodDisruptionBudget"): "policy/v1beta1",
    ("batch/v1", "CronJob"): "batch/v1beta1",
    ("autoscaling/v2", "HorizontalPodAutoscaler"): "autoscaling/v2beta2",
}
BUILT_IN = ("v1", "apps/", "autoscaling/", "batch/", "networking.k8s.io/", "policy/", "rbac.authorization.k8s.io/")


SETS = {
    **MATRIX,
    "load tests": loadtest_values.EVERYTHING,
    "load tests, mutual TLS": loadtest_values.MUTUAL,
}


def main() -> None:
    with tempfile.TemporaryDirectory() as work, control_plane(Path(work), []) as api:
        print(f"{programs()['kube-apiserver']}; {len(SETS)} sets of values")
        api.call("POST", "/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})
        cluster = Cluster(api)
        refused = [*dry_run(cluster), *upgrade(cluster, Path(work) / KUBECONFIG)]
    print("\n".join(refused) or "nothing was refused")
    sys.exit(bool(refused))


def dry_run(cluster: "Cluster") -> Iterator[str]:
    """Send every manifest; what was refused."""
    taken = 0
    for name, values in SETS.items():
        for path, manifest in cluster.rendered(values):
            try:
                cluster.api.call("POST", f"{path}?dryRun=All", manifest)
                taken += 1
            except RuntimeError as error:
                yield f"{name}: {manifest['kind']} {manifest['metadata']['name']}: {error}"
    print(f"{taken} manifests were taken; left out: {', '.join(sorted(cluster.left_out))}")


def upgrade(cluster: "Cluster", kubeconfig: Path) -> Iterator[str]:
    """Go from the minimal values to each set and back; what was refused."""
    changes = 0
    command = [str(kubectl_binary()), f"--kubeconfig={kubeconfig}", "apply", "--validate=false", "-f", "-"]
    for name, values in SETS.items():
        for step, given in ((f"before {name}", {}), (name, values)):
            manifests = [manifest for _, manifest in cluster.rendered(given) if manifest["kind"] != "Pod"]
            ran = subprocess.run(
                command, input=yaml.safe_dump_all(manifests), capture_output=True, text=True, check=False
            )
            changes += len(ran.stdout.splitlines())
            if ran.returncode:
                yield f"{step}: {ran.stderr}"
    print(f"{changes} manifests were applied over those before them")


class Cluster:
    """The API server, and where it takes manifests, asked of it once for each version of a group."""

    def __init__(self, api: Api) -> None:
        self.api = api
        self.left_out: set[str] = set()
        self._helm = helm_binary()
        self._kinds: dict[str, dict[str, str]] = {}

    def rendered(self, values: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
        """Path and manifest, in a version that the server has, of each built-in kind that `values` give."""
        for manifest in render_chart(self._helm, merged(MINIMAL, values), namespace=NAMESPACE):
            version, kind = manifest["apiVersion"], manifest["kind"]
            if not version.startswith(BUILT_IN):
                self.left_out.add(kind)
                continue
            if kind not in self._of(version):
                version = BEFORE[version, kind]
            yield self._of(version)[kind], {**manifest, "apiVersion": version}

    def _of(self, version: str) -> dict[str, str]:
        if version not in self._kinds:
            root = "/api/v1" if version == "v1" else f"/apis/{version}"
            try:
                resources = self.api.call("GET", root)["resources"]
            except RuntimeError:  # the server is older
                resources = []
            self._kinds[version] = {
                each["kind"]: f"{root}/namespaces/{NAMESPACE}/{each['name']}"
                for each in resources
                if each["namespaced"] and "/" not in each["name"]
            }
        return self._kinds[version]


if __name__ == "__main__":
    main()
