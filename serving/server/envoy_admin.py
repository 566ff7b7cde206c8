"""Envoy's administration, through its Unix socket: what it knows of the backends, what it counted, how it drains."""

import http.client
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from serving.frontdoor.envoy import LISTENER
from serving.unix_socket import UnixConnection

_TIMEOUT_S = 2.0

SILENT = (OSError, http.client.HTTPException, ValueError, LookupError)
"""What asking raises when Envoy starts, ends or hangs."""


@dataclass(frozen=True)
class Traffic:
    """What is under way at the front door."""

    connections: int
    requests: int


class EnvoyAdmin:
    """Asks the Envoy whose administration listens at `path`; everything raises one of `SILENT` if it doesn't answer."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def health(self) -> dict[str, bool]:
        """Cluster → whether each of its hosts has answered a real inference lately."""
        statuses = json.loads(self.ask("GET", "/clusters?format=json"))["cluster_statuses"]
        return {cluster["name"]: _is_healthy(cluster.get("host_statuses", [])) for cluster in statuses}

    def port(self) -> int:
        """The port of the front door."""
        listeners = json.loads(self.ask("GET", "/listeners?format=json"))["listener_statuses"]
        [found] = [one for one in listeners if one["name"] == LISTENER]
        return int(found["local_address"]["socket_address"]["port_value"])

    def routes_version(self) -> str:
        """The `version_info` of the routes that are in force."""
        return self.ask("GET", "/stats?type=TextReadouts&filter=rds").decode().split('"')[1]

    def counters(self, pattern: str) -> dict[str, int]:
        """Counters and gauges whose name `pattern` (RE2) matches."""
        return {one["name"]: one["value"] for one in self._stats(pattern) if isinstance(one.get("value"), int)}

    def histograms(self, pattern: str) -> dict[str, list[tuple[float, float, int]]]:
        """Histograms since Envoy's start: name → [(lower bound, width, count)], in buckets a tenth wide at most."""
        found: dict[str, list[tuple[float, float, int]]] = {}
        for one in self._stats(pattern):
            for histogram in one.get("histograms", {}).get("details", []):
                found[histogram["name"]] = [
                    (bucket["lower_bound"], bucket["width"], bucket["count"]) for bucket in histogram.get("totals", [])
                ]
        return found

    def traffic(self) -> Traffic:
        """Connections and requests of callers that are open."""
        found = self.counters(rf"^http\.{LISTENER}\.downstream_(cx|rq)_active$")
        return Traffic(
            connections=found.get(f"http.{LISTENER}.downstream_cx_active", 0),
            requests=found.get(f"http.{LISTENER}.downstream_rq_active", 0),
        )

    def announce_end(self) -> None:
        """Fail health checks and answer every request with `Connection: close` (GOAWAY), but go on accepting."""
        self.ask("POST", "/healthcheck/fail")
        self.ask("POST", "/drain_listeners?graceful&skip_exit")

    def stop_accepting(self) -> None:
        """Close the listener; connections that are open stay."""
        self.ask("POST", "/drain_listeners")

    def reopen_logs(self) -> None:
        """Go on writing under the old name after a log was moved away."""
        self.ask("POST", "/reopen_logs")

    def ask(self, method: str, path: str) -> bytes:
        """The answer's body."""
        connection = UnixConnection(self._path, _TIMEOUT_S)
        try:
            connection.request(method, path)
            return connection.getresponse().read()
        finally:
            connection.close()

    def _stats(self, pattern: str) -> list[dict[str, Any]]:
        found = json.loads(self.ask("GET", f"/stats?format=json&histogram_buckets=detailed&filter={quote(pattern)}"))
        stats: list[dict[str, Any]] = found["stats"]
        return stats


def _is_healthy(hosts: list[dict[str, Any]]) -> bool:
    return bool(hosts) and all(
        host["health_status"].get("eds_health_status") == "HEALTHY"
        and not host["health_status"].get("failed_active_health_check")
        for host in hosts
    )
