"""A replica as a capacity search measured it (`slipway loadtest --capacity`): what a plan begins with."""

from dataclasses import dataclass
from pathlib import Path

from slipway.artifacts import read_artifact
from slipway.capacity import CAPACITY, Capacity
from slipway.errors import SlipwayError


@dataclass(frozen=True)
class Measured:
    """Figures of one replica."""

    service_ms: float
    """Time of a request in a model instance, at the highest rate that met the objective."""
    overhead_ms: float
    """Of proxy and network: what an answer takes beyond that when nobody waits."""
    instances: int | None
    """None if the search didn't start the endpoint itself, and so doesn't know."""
    objective_ms: float | None
    """The p99 that was asked for."""


def read_measured(path: Path) -> Measured:
    """The figures in the capacity artifact at `path`; raises `SlipwayError` if it is none or changed."""
    artifact = read_artifact(path)
    if artifact.manifest.kind != "capacity":
        raise SlipwayError(f"{path} is a {artifact.manifest.kind}; a capacity can be planned with.")
    found = Capacity.model_validate(artifact.json(CAPACITY))
    if found.outcome == "none":
        raise SlipwayError(
            f"{path}: no rate met the objective, so that no number of such replicas would: {found.reason}"
        )
    return Measured(
        service_ms=found.service_ms,
        overhead_ms=max(0.0, found.unloaded_ms - found.service_ms),
        instances=found.endpoint.get("instances"),
        objective_ms=found.slo.get("p99_ms"),
    )
