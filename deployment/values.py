"""A values file from what was measured: `slipway deploy values BUNDLE --verdict CAPACITY`.

Everything that is written has a source, which its comment names, and nothing else is: what the chart's defaults say
stays the chart's to say, so that a values file grows no older than its evidence.

A replica is sized for what the load test saw: processor time at the highest rate that met the objective, with the
instances' threads as the least; resident memory times 1.5, as the test saw minutes and a pod lives for weeks; shared
memory, which counts as the pod's. A replica's share of a rate is 70 % of the capacity's lower bound: what the
autoscaler keeps busy, and room for the traffic while another replica starts.
"""

import math
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import jsonschema
import yaml

from autoscaling.settings import BUSY, defaults
from deployment.schema import values_schema
from slipway.artifacts import Artifact, read_artifact
from slipway.bundle import Bundle
from slipway.capacity import CAPACITY, Capacity
from slipway.errors import SlipwayError
from slipway.timeline import TIMELINE, Timeline
from slipway.verdict import VERDICT, Verdict

_MEMORY_ROOM = 1.5
_SHARED_MIB = 256
"""The chart's `sharedMemoryMiB`."""
_MIB = 1 << 20
_STEP_MIB = 256
_STARTS = 10
"""A start on a busy node may take so many times as long as it did where it was measured."""
_PERCENTS = {"p50_ms": 50.0, "p95_ms": 95.0, "p99_ms": 99.0, "p999_ms": 99.9}


@dataclass(frozen=True)
class Evidence:
    """What a load test says about one replica."""

    what: str
    """One line: which artifact, what it found."""
    rate: float
    """Requests/s that it answered within the objective, at least."""
    latency_ms: float | None
    """The objective's latency, and of how many percent of the requests: the highest percentile if there are several."""
    latency_percent: float | None
    cores: float | None
    """Processor seconds for each second at that rate."""
    memory_mb: float | None
    endpoint: dict[str, Any]

    @classmethod
    def read(cls, path: Path, bundle: Bundle) -> Self:
        """Of the verdict or capacity at `path`.

        Raises `SlipwayError` if it is neither, is of another bundle, or does not say that an objective was met.
        """
        artifact = read_artifact(path)
        if artifact.manifest.kind not in ("verdict", "capacity"):
            raise SlipwayError(f"{path} is a {artifact.manifest.kind}; a capacity or a verdict is needed.")
        if bundle.artifact.digest not in [parent.digest for parent in artifact.manifest.parents]:
            raise SlipwayError(f"{path} was measured with another bundle than {bundle.path}; measure this one.")
        of = cls._of_capacity if artifact.manifest.kind == "capacity" else cls._of_verdict
        return of(artifact)

    @classmethod
    def _of_capacity(cls, artifact: Artifact) -> Self:
        found = Capacity.model_validate(artifact.json(CAPACITY))
        if found.interval is None:
            raise SlipwayError(f"{artifact.path}: no rate met the objective, so no replica would: {found.reason}")
        rate = found.interval.low
        per_request = found.cpu_ms_per_request
        latency, percent = _objective(found.slo)
        likely = f", {found.interval.estimate:,.0f} most likely" if found.outcome == "found" else ", more was not tried"
        return cls(
            f"{artifact.path.name} {artifact.digest[:12]}: {rate:,.0f} requests/s at least{likely} "
            f"({found.arrivals}, {', '.join(found.protocols)})",
            rate,
            latency,
            percent,
            None if per_request is None else per_request * rate / 1000,
            found.memory_mb,
            found.endpoint,
        )

    @classmethod
    def _of_verdict(cls, artifact: Artifact) -> Self:
        found = Verdict.model_validate(artifact.json(VERDICT))
        if found.outcome != "met":
            raise SlipwayError(
                f"{artifact.path}: the objective was not shown to be met ({found.outcome}): {found.reason}"
            )
        usage = Timeline.model_validate(artifact.json(TIMELINE)).usage
        latency, percent = _objective({one.name: one.limit for one in found.objectives})
        return cls(
            f"{artifact.path.name} {artifact.digest[:12]}: objective met at {found.offered_rate:,.0f} requests/s; "
            "what it can do beyond was not measured (slipway loadtest --capacity)",
            found.offered_rate,
            latency,
            percent,
            usage.cpu_cores if usage else None,
            usage.rss_mb if usage else None,
            found.endpoint,
        )


@dataclass(frozen=True)
class Wanted:
    """What the evidence can't say."""

    hardware: str | None = None
    peak: float | None = None
    """Requests/s that there will be at most."""
    usual: float | None = None
    """Requests/s on an ordinary day."""
    instances: int | None = None
    startup_s: float | None = None


def values_file(bundle: Bundle, evidence: Evidence, wanted: Wanted) -> str:
    """The file's text; raises `SlipwayError` if evidence and wishes leave something open that must be known."""
    target = "cpu" if "cpu" in bundle.spec.targets else "gpu"
    hardware = wanted.hardware or ("cpu" if target == "cpu" else None)
    if hardware is None:
        raise SlipwayError("the bundle has a model for GPUs only: say on which with --hardware nvidia-l4, ….")
    on_gpu = hardware not in ("cpu", "own")
    if ("gpu" if on_gpu else "cpu") not in bundle.spec.targets:
        raise SlipwayError(
            f"{bundle.path} has no model for {hardware}; it has one for {', '.join(bundle.spec.targets)}."
        )
    instances = wanted.instances or evidence.endpoint.get("instances")
    if instances is None:
        raise SlipwayError(
            "how many model instances the measured endpoint had isn't in its record: --instances is needed."
        )
    lines = [
        "# Values for helm/slipway, from what was measured. Still to say: model.source, auth, and how it is reached.",
        f"#   bundle    {bundle.spec.name}, {bundle.artifact.manifest.metrics.get('variant', 'as exported')}",
        f"#   evidence  {evidence.what}",
    ]
    values: list[tuple[dict[str, Any], str]] = [
        (
            {"hardware": hardware},
            "Where it was measured, or what you said." if wanted.hardware else "The bundle's target.",
        ),
        ({"instances": int(instances)}, "Of the model, as measured."),
        ({"model": {"digest": f"sha256:{bundle.artifact.digest}"}}, "Another artifact is refused."),
    ]
    serve = {key: evidence.endpoint[key] for key in ("layout", "threads", "long_text") if key in evidence.endpoint}
    if serve:
        values.append(({"serve": serve}, "As measured."))
    if evidence.latency_ms is not None:
        slo = {"latencyMs": _short(evidence.latency_ms), "latencyPercent": _short(evidence.latency_percent or 99.0)}
        values.append(({"slo": slo}, "The objective that was met."))
    if not on_gpu:
        values.append(_resources(bundle, evidence, int(instances)))
    startup = wanted.startup_s or evidence.endpoint.get("ready_s")
    if startup is not None:
        values.append(
            (
                {"startupSeconds": max(60, math.ceil(_STARTS * startup))},
                f"It took {startup:.1f} s; {_STARTS} times that.",
            )
        )
    # What is counted in an ensemble or on a GPU is the chart's to know.
    targets = {} if on_gpu or evidence.endpoint.get("layout") == "ensemble" else defaults(int(instances)).targets
    section, said = _autoscaling(evidence, wanted, {str(name): value for name, value in targets.items()})
    if section["autoscaling"]:
        values.append((section, said))
    _require_valid([value for value, _ in values])
    for value, comment in values:
        lines += [
            "",
            *textwrap.wrap(comment, 110, initial_indent="# ", subsequent_indent="# "),
            yaml.safe_dump(value, sort_keys=False, allow_unicode=True).rstrip(),
        ]
    return "\n".join(lines) + "\n"


def _objective(limits: dict[str, float]) -> tuple[float | None, float | None]:
    for name in ("p999_ms", "p99_ms", "p95_ms", "p50_ms"):
        if name in limits:
            return limits[name], _PERCENTS[name]
    return None, None


def _resources(bundle: Bundle, evidence: Evidence, instances: int) -> tuple[dict[str, Any], str]:
    threads = int(evidence.endpoint.get("threads") or bundle.target("cpu").threads)
    # One beyond the instances' own: Envoy, Triton and what is not the model's engine.
    cores = max(instances * threads + 1, math.ceil(evidence.cores or 0))
    amounts: dict[str, Any] = {"cpu": str(cores)}
    said = f"{instances} × {threads} threads and one core for the rest"
    if evidence.cores is not None:
        said += f" ({evidence.cores:.1f} cores were used)"
    if evidence.memory_mb is not None:
        needed = _MEMORY_ROOM * evidence.memory_mb * 1e6 / _MIB + _SHARED_MIB
        amounts["memory"] = f"{_STEP_MIB * math.ceil(needed / _STEP_MIB)}Mi"
        said += f"; {evidence.memory_mb:,.0f} MB resident × {_MEMORY_ROOM}, and {_SHARED_MIB} MiB of shared memory"
    return {"resources": {"requests": dict(amounts), "limits": dict(amounts)}}, f"{said}."


def _autoscaling(evidence: Evidence, wanted: Wanted, targets: dict[str, float]) -> tuple[dict[str, Any], str]:
    each = BUSY * evidence.rate
    section: dict[str, Any] = {"targets": {name: _short(value) for name, value in targets.items()}} if targets else {}
    said = f"A replica is kept at {each:,.0f} requests/s, {BUSY:.0%} of {evidence.rate:,.0f}."
    least = 2
    if wanted.usual is not None:
        least = max(least, math.ceil(wanted.usual / each))
        section["minReplicas"] = least
        said += f" {wanted.usual:,.0f}/s take {math.ceil(wanted.usual / each)}."
    if wanted.peak is not None:
        needed = math.ceil(wanted.peak / each)
        # Half as many again: for what nobody foresaw, and for pods that are being replaced.
        section["maxReplicas"] = max(least, math.ceil(1.5 * needed))
        said += f" {wanted.peak:,.0f}/s take {needed}; half as many again may start."
    elif wanted.usual is not None:
        # The chart's own maximum may be below what is usual.
        section["maxReplicas"] = 2 * least
        said += " No peak is known: twice as many may start."
    return {"autoscaling": section}, f"{said} Set type to hpa or keda; slipway deploy plan tries it on a traffic."


def _require_valid(parts: list[dict[str, Any]]) -> None:
    whole: dict[str, Any] = {}
    for part in parts:
        whole |= part
    for error in jsonschema.Draft202012Validator(values_schema()).iter_errors(whole):
        # What isn't written has the chart's defaults.
        if error.validator != "required":
            raise SlipwayError(f"the chart can't take {error.json_path}: {error.message}")


def _short(value: float) -> float | int:
    rounded = round(float(value), 3)
    return int(rounded) if rounded.is_integer() else rounded
