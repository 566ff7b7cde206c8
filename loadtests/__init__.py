"""Open-loop load at a running endpoint, and whether its service-level objective is met.

    arrivals.py     when: arrival processes
    texts.py        what: texts with the answers they must get
    plan.py         when × what × over which protocol, all drawn before the first request
    protocols.py    one request over gRPC or HTTP
    clock.py        an alarm for asyncio that rings on time
    preflight.py    one request before the load
    dispatch.py     sends the plan on time, whatever the server does
    samples.py      one row per scheduled arrival
    locustfiles/    the above as a Locust user; runs by itself too: `locust -f …/open_loop.py --headless`
    launch.py       Locust in a process that can't outlive its parent
    address.py      where load may go
    slo.py          percentiles and objectives: samples → `Verdict`
    run.py          all of it: bundle + address + section → verdict artifact
    table.py        a verdict for the terminal

What a run has beside it:

    accompaniment.py  the monitor and the faults of one run, and the timeline that they end in
    server.py         the processes behind an address of this machine
    monitor.py        processor, memory and Triton's counters while the load runs (triton_statistics.py reads those)
    chaos.py          faults on purpose; recovery.py: what they did to the requests
    timeline.py       samples → windows, percentiles, drift, bursts, in bounded memory (histogram.py, trend.py)

What is made of many runs:

    capacity.py       the highest rate that meets the objective; search.py decides what to probe,
                      idle.py drains in between, bottleneck.py says what the limit is
    comparison.py     two endpoints in turn; bootstrap.py gives ratios with intervals

How it is told: outcome.py (exit codes, JSON), junit.py, page.py (report.html), summaries.py (the terminal).

Slipway's own types (`slipway.recipe`, `slipway.verdict`) are all that it shares with the other stages.
"""

from loadtests.capacity import find_capacity
from loadtests.comparison import Contender, compare
from loadtests.outcome import outcome_of, write_outputs
from loadtests.run import run
from loadtests.summaries import summary_of
from loadtests.table import summary

__all__ = [
    "Contender",
    "compare",
    "find_capacity",
    "outcome_of",
    "run",
    "summary",
    "summary_of",
    "write_outputs",
]
