"""What Locust's processes tell the one that started them: lines of JSON through a pipe."""

import json
import os
import selectors
import time
from collections.abc import Iterator
from typing import Any

Report = dict[str, Any]
"""Of a run that goes on: `elapsed_s`, `p99_ms` (None while warming up), `failures`, `pid` of the process that says so
(or the name of a worker elsewhere), and `zero_s`: the start of the measured window on this machine's monotonic clock
(None until it is known). `error` ends a run; `invalid` beside it says that the load had begun."""

_LONGEST_S = 3600.0


def report(descriptor: int, **values: Any) -> None:
    """Write a line, if there is somebody to read it."""
    if descriptor >= 0:
        os.write(descriptor, json.dumps(values).encode() + b"\n")


class Deadline:
    """Until when lines are waited for; may be put off."""

    def __init__(self, within_s: float) -> None:
        self.at_s = time.monotonic() + within_s

    @property
    def left_s(self) -> float:
        """Not below 0."""
        return max(self.at_s - time.monotonic(), 0.0)

    def put_off(self, seconds: float) -> None:
        """Wait for at least so long from now on."""
        self.at_s = max(self.at_s, time.monotonic() + seconds)


def lines(descriptor: int, deadline: Deadline) -> Iterator[Report]:
    """Reports from a pipe until its other end is closed; raises `TimeoutError` at the deadline."""
    rest = b""
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_READ)
        # Not for longer at a time: the kernel counts milliseconds in 32 bits.
        while (ready := selector.select(min(deadline.left_s, _LONGEST_S))) or deadline.left_s:
            if not ready:
                continue
            chunk = os.read(descriptor, 65536)
            if not chunk:
                return
            *found, rest = (rest + chunk).split(b"\n")
            yield from map(json.loads, found)
    raise TimeoutError
