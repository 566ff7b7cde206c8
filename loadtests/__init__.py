"""Load at a running endpoint, and whether its service-level objective is met.

    arrivals/       when: arrival processes, one a file
    mixes.py        what: which text comes when
    texts.py        texts with the answers they must get; answers.py has the bundle give them
    plan.py         when × what × over which protocol, drawn chunk by chunk
    protocols/      one request over gRPC, HTTP or generate
    access.py       credentials and certificates
    address.py      where load may go
    clock.py        an alarm for asyncio that rings on time
    preflight.py    one request before the load
    exchange.py     one request: sent, answered, checked
    dispatch.py     sends the plan on time, whatever the server does
    closed_loop.py  sends when its users have their answers
    vitals.py       how the generator itself is doing meanwhile
    samples.py      one row per request, written page by page
    locustfiles/    the above as a Locust user; runs by itself too: `locust -f …/load.py --headless`
    together.py     several workers begin and end as one; conductor.py is the master's side
    job.py          what a process sends; parcels.py: files over Locust's connection
    generator.py    Locust's processes; launch.py keeps them from outliving their parent, reports.py is what they say
    worker.py       a worker for masters on other machines
    intervals.py    what a run of this length knows about a percentile
    validity.py     whether the figures may be believed
    measured.py     samples, as small as they can be judged from
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
from loadtests.generator import Elsewhere
from loadtests.outcome import outcome_of, require_outputs, write_outputs
from loadtests.run import run
from loadtests.summaries import summary_of
from loadtests.table import summary
from loadtests.worker import work

__all__ = [
    "Contender",
    "Elsewhere",
    "compare",
    "find_capacity",
    "outcome_of",
    "require_outputs",
    "run",
    "summary",
    "summary_of",
    "work",
    "write_outputs",
]
