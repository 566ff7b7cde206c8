"""May the figures of a run be believed? Everything here is about the generator; the server can't cause any of it."""

from collections.abc import Sequence

from slipway.recipe import LoadTest
from slipway.verdict import Generator

_MOST_SENDING_CPU = 0.9
"""Of a core. A queue in front of a thread that busy is ten times as long as its work."""
_STALL_LAGS = 50
"""A stall may be so many times `max_dispatch_lag_ms`: with 20 ms a second, which is no hiccup any more."""
_MOST_CLOCK_JUMP_S = 0.1
_MOST_SUSPENSION_S = 0.1


def why_invalid(section: LoadTest, lag_p99_ms: float, generators: Sequence[Generator]) -> list[str]:
    """Sentences that say why the run says nothing about the server; none if it does."""
    found = []
    if lag_p99_ms > section.max_dispatch_lag_ms:
        found.append(
            f"The load generator was late itself (p99 of its lag is {lag_p99_ms:.1f} ms, at most "
            f"{section.max_dispatch_lag_ms:g} ms allowed), so the figures say nothing about the server: give it more "
            "CPU or workers, or lower the rate."
        )
    for generator in generators:
        found += _why_generator(section, generator)
    return found


def _why_generator(section: LoadTest, generator: Generator) -> list[str]:
    found = []
    who = f"The load generator on {generator.host}" if generator.host else "The load generator"
    of = f" of {generator.host}" if generator.host else ""
    where = generator.host or "this machine"
    if generator.unsent:
        found.append(
            f"{who} fell {section.timeout_s:g} s behind and never sent {generator.unsent} requests: give "
            "it more CPU or workers, or lower the rate."
        )
    if generator.sending_cpu > _MOST_SENDING_CPU:
        found.append(
            f"{who} was saturated (its sending thread used {generator.sending_cpu:.0%} of a core), so "
            "answers waited to be read: raise workers or lower the rate."
        )
    if generator.exhausted:
        found.append(
            f"{generator.exhausted} requests failed because {where} ran out of sockets, ports or buffers: raise "
            "`ulimit -n` or the range of ports, or lower the rate."
        )
    if generator.longest_stall_ms > _STALL_LAGS * section.max_dispatch_lag_ms:
        found.append(f"{who} stood still for {generator.longest_stall_ms / 1000:.1f} s: it was stopped or had no CPU.")
    if generator.suspended_s > _MOST_SUSPENSION_S:
        found.append(
            f"{generator.host or 'The machine'} was suspended for {generator.suspended_s:.1f} s during the run."
        )
    if generator.clock_jump_s > _MOST_CLOCK_JUMP_S:
        found.append(
            f"The clock{of} was set by {generator.clock_jump_s:.2f} s during the run: deadlines and start times went "
            "by it."
        )
    if generator.start_error_ms > section.max_dispatch_lag_ms:
        found.append(
            f"{who} may have begun {generator.start_error_ms:.0f} ms apart from the others (at most "
            f"{section.max_dispatch_lag_ms:g} ms allowed): its way to the master is too slow."
        )
    if generator.clock_drift_ms > _STALL_LAGS * section.max_dispatch_lag_ms:
        found.append(
            f"The clock{of} ran away from the master's by {generator.clock_drift_ms / 1000:.1f} s: set the clocks of "
            "all machines by NTP."
        )
    return found
