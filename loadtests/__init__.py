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

Slipway's own types (`slipway.recipe`, `slipway.verdict`) are all that it shares with the other stages.
"""

from loadtests.run import run
from loadtests.table import summary

__all__ = ["run", "summary"]
