"""What keeps an endpoint from more: its machine, its queue, or the client that asks.

Decided on the lowest rate that was missed, where the limit is just passed, by what is known there: the server's
and the generator's share of the cores (on this machine), queue and compute time for each request (Triton's
statistics), and how late the generator was. Every conclusion carries its figures, so that it can be doubted.
"""

from slipway.capacity import Bottleneck, Probe

_FULL = 0.85
"""Of all cores: what is left is less than a request in service could use."""
_STRANGERS = 0.1
"""Cores; below that it is the system itself."""
_GREW = 1.5
_HIGH_SHARE = 0.5


def bottleneck_of(probes: list[Probe], unloaded_ms: float, *, limited_by_client: bool) -> Bottleneck:
    """The bottleneck by the probes of a search; `limited_by_client` if the client could not offer more."""
    if limited_by_client:
        return _client(probes)
    missed = [probe for probe in probes if probe.answer == "missed"]
    if not missed:
        return Bottleneck(what="unknown", reason="No rate was found that the endpoint does not hold.")
    over = min(missed, key=lambda probe: probe.rate)
    lowest = min((probe for probe in probes if probe.answer != "invalid"), key=lambda probe: probe.rate)
    at = f"At {over.rate:.4g} requests/s"
    full = _cores(over)
    if not over.achieved_rate:
        found = Bottleneck(what="unknown", reason=f"{at} not one request was answered rightly: {over.reason}")
    elif full is not None and full >= _FULL:
        found = Bottleneck(what="compute", reason=f"{at} no core was idle: {_use(over)}.{_waiting(over)}")
    elif over.work is not None:
        found = _by_triton(over, lowest, at)
    else:
        found = _from_outside(over, unloaded_ms, at)
    return found


def _from_outside(over: Probe, unloaded_ms: float, at: str) -> Bottleneck:
    waited = over.latency.mean - unloaded_ms
    grown = f"{at} a request took {over.latency.mean:.1f} ms in the mean, {unloaded_ms:.1f} ms alone"
    if over.usage is not None and waited > _HIGH_SHARE * over.latency.mean:
        return Bottleneck(
            what="queue", reason=f"{grown}, and cores were idle ({_use(over)}): requests wait for an instance."
        )
    return Bottleneck(
        what="unknown",
        reason=f"{grown}; whether it waits or computes can't be told from outside. Give --metrics URL.",
    )


def _by_triton(over: Probe, lowest: Probe, at: str) -> Bottleneck:
    work = over.work
    assert work is not None  # noqa: S101  (asked by the caller)
    idle = f" while cores were idle ({_use(over)})" if over.usage else ""
    if lowest.work is not None and lowest is not over and work.compute_ms > _GREW * lowest.work.compute_ms:
        return Bottleneck(
            what="compute",
            reason=f"{at} computing a request took {work.compute_ms:.1f} ms, at {lowest.rate:.4g} requests/s "
            f"{lowest.work.compute_ms:.1f} ms: the instances are in each other's way.",
        )
    if work.queue_ms > _HIGH_SHARE * (work.queue_ms + work.compute_ms):
        return Bottleneck(
            what="queue",
            reason=f"{at} a request waited {work.queue_ms:.1f} ms in Triton's queue and was computed in "
            f"{work.compute_ms:.1f} ms{idle}: more instances, or another batching, would help.",
        )
    return Bottleneck(
        what="compute",
        reason=f"{at} a request was computed in {work.compute_ms:.1f} ms and waited {work.queue_ms:.1f} ms in the "
        "queue: the model's own time is the limit.",
    )


def _client(probes: list[Probe]) -> Bottleneck:
    late = min((probe for probe in probes if probe.answer == "invalid"), key=lambda probe: probe.rate)
    shared = ""
    full = _cores(late)
    if full is not None and full >= _FULL:
        shared = f" No core was idle ({_use(late)}): the two share the machine; drive the load from another one."
    return Bottleneck(what="client", reason=f"At {late.rate:.4g} requests/s: {late.reason}{shared}")


def _cores(probe: Probe) -> float | None:
    """Share of the machine's cores that were busy; None if unknown."""
    usage = probe.usage
    if usage is None:
        return None
    return max(usage.cpu_cores + usage.generator_cores, usage.machine_cores) / usage.cores


def _use(probe: Probe) -> str:
    usage = probe.usage
    if usage is None:
        return "unknown"
    others = f", others {usage.other_cores:.2f}" if usage.other_cores >= _STRANGERS else ""
    return f"server {usage.cpu_cores:.2f}, generator {usage.generator_cores:.2f}{others} of {usage.cores}"


def _waiting(probe: Probe) -> str:
    if probe.work is None:
        return ""
    queue_ms, compute_ms = probe.work.queue_ms, probe.work.compute_ms
    return f" A request waited {queue_ms:.1f} ms in Triton's queue and was computed in {compute_ms:.1f} ms."
