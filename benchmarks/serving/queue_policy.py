"""What a queue policy of Triton's costs: how many requests wait half a second for nothing, with one and without.

    python -m benchmarks.serving.queue_policy BUNDLE [--rounds 2] [--requests 1000]

An endpoint with the policy that bounds Triton's queue in length and time, and one without, take turns. One caller asks
again as soon as it is answered, at one instance; then at two instances one to six callers ask at once, again and again.
`slow` are requests of more than 300 ms: Triton's batcher looks at its queue every 500 ms when nobody wakes it. Start it
under `taskset -c 0` to see a machine of one core.
"""

import argparse
import contextlib
import os
import random
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

import serving
from serving.client import Client
from serving.repository import configuration
from slipway.bundle import Bundle
from slipway.recipe import Serve

_TEXT = "a film of the kind that one forgets"
_SLOW_S = 0.3
_MOST_AT_ONCE = 6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--requests", type=int, default=1000)
    options = parser.parse_args()
    bundle = Bundle.open(options.bundle)
    taken: dict[tuple[str, str], list[float]] = defaultdict(list)
    for _ in range(options.rounds):
        for policy in (True, False):
            for callers, instances in (("one", 1), ("bursts", 2)):
                with endpoint(bundle, instances, policy=policy) as client:
                    key = (f"{callers}, {instances} instance(s)", "with" if policy else "without")
                    most = 1 if callers == "one" else _MOST_AT_ONCE
                    taken[key] += asked(client, options.requests, most)
    print(f"{len(os.sched_getaffinity(0))} cores, {bundle.spec.name}")
    print("| callers | policy | requests | p50 ms | p99 ms | p99.9 ms | slow |")
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: |")
    for (callers, policy_name), seconds in sorted(taken.items()):
        p50, p99, p999 = (1e3 * np.quantile(seconds, share) for share in (0.5, 0.99, 0.999))
        slow = sum(each > _SLOW_S for each in seconds)
        print(f"| {callers} | {policy_name} | {len(seconds):,} | {p50:.1f} | {p99:.1f} | {p999:.1f} | {slow} |")


@contextlib.contextmanager
def endpoint(bundle: Bundle, instances: int, *, policy: bool) -> Iterator[Client]:
    """A client of the bundle's endpoint, with or without a policy of Triton's queue."""
    section = Serve(port=0, instances=instances)
    batching = configuration.dynamic_batching

    def bounded(schema: Any, *arguments: Any) -> Any:
        config = batching(schema, *arguments)
        config.default_queue_policy.max_queue_size = section.max_queue
        config.default_queue_policy.default_timeout_microseconds = round(section.timeout_s * 1e6)
        config.default_queue_policy.allow_timeout_override = True
        return config

    with tempfile.TemporaryDirectory() as directory:
        with mock.patch.object(configuration, "dynamic_batching", bounded if policy else batching):
            repository = serving.write_repository(bundle, Path(directory) / "repository", section)
        with serving.start(repository.path, section) as running, Client(running.address, bundle.spec.name) as client:
            yield client


def asked(client: Client, requests: int, most: int) -> list[float]:
    """Seconds that each of `requests` took, of which up to `most` were sent at once."""

    def ask(_: int) -> float:
        began = time.monotonic()
        client.classify([_TEXT])
        return time.monotonic() - began

    draw = random.Random(0)
    seconds: list[float] = []
    with ThreadPoolExecutor(most) as pool:
        while len(seconds) < requests:
            seconds += pool.map(ask, range(draw.randint(1, most)))
    return seconds


if __name__ == "__main__":
    main()
