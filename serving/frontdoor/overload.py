"""How many requests may be in flight, so that those that are let in meet their objective and the rest hear at once.

One bound for both protocols, before either cluster: Envoy's adaptive concurrency filter. By Little's law the
requests in flight are throughput × latency, so holding latency at its objective is holding them at a number. That
number is known roughly from the service time measured at the start: objective × instances ÷ service time. It is the
ceiling: whoever came in behind so many would be answered too late, and a sudden crowd is met by it at once.

Below it the filter follows what really happens, as load generators, neighbours and longer texts slow a machine
down. Five times a second it compares the p95 of the latencies it saw with a target, and multiplies the bound by the
ratio (at most 2, at least ½) plus its square root. Its own search for the lowest possible latency, which on a
small shared machine measures the neighbours, is switched off: the target is fixed, at `_TARGET` of the objective,
which leaves room for that square root and for the way from the p95 to the p99. The floor is a quarter of the
ceiling, and never less than two for each instance (one that runs, one that waits), so that no instance idles while
requests are refused. It is also where the filter starts.

Weighed against: circuit breakers (one bound for each cluster, so HTTP and gRPC would each have their own, and a
number of connections says nothing about latency; they remain as a second line), a fixed number from the measured
service time alone (wrong as soon as load generators, neighbours or longer texts share the cores), admission control
(sheds by success rate, after requests have already failed), and a queue inside Envoy (there is none; waiting is
Triton's). The prices: on a machine that is four times slower than it was at the start the objective is missed; and
latency is one request's, so callers who send 64 texts at a time need an objective that allows it.
"""

import http.client
import json
import math
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from serving.frontdoor.door import FrontDoor
from serving.frontdoor.xds import filter_resource
from serving.protocol import Json, inference_body

FILTER, FILTER_TYPE = "overload", "extensions.filters.http.adaptive_concurrency.v3.AdaptiveConcurrency"
DEFAULT_SLO_MS = 100.0

_SERVICE_TIMES_IN_DEFAULT_SLO = 20
_LEAST_PER_INSTANCE = 2
_FLOOR = 1 / 4
_TARGET = 0.5
_PERCENTILE = 95
_UPDATE_INTERVAL = "0.2s"
_UNLIMITED_MS = 3_600_000.0
_PROBES = 6


def most_in_flight(door: FrontDoor) -> int:
    """The ceiling, for all instances together."""
    return door.limits.max_in_flight or door.instances + door.max_queue


def bounds(door: FrontDoor) -> tuple[int, int]:
    """The floor and the ceiling that the filter keeps between; equal until the service time is known."""
    most = most_in_flight(door)
    if door.service_ms is None:
        return most, most
    in_time = slo_ms(door) * door.instances / door.service_ms
    least = _LEAST_PER_INSTANCE * door.instances
    floor, ceiling = (min(most, max(least, math.floor(share * in_time))) for share in (_FLOOR, 1))
    return floor, ceiling


def slo_ms(door: FrontDoor) -> float:
    """The recipe's objective; without one, 100 ms or 20 times the model's own time, whichever is longer."""
    if door.limits.slo_ms is not None:
        return door.limits.slo_ms
    return max(DEFAULT_SLO_MS, _SERVICE_TIMES_IN_DEFAULT_SLO * (door.service_ms or 0.0))


def overload_filter(door: FrontDoor) -> Json:
    """The filter that refuses with 503 what is beyond the bound; until the service time is known, only the ceiling."""
    floor, ceiling = bounds(door)
    target_ms = _TARGET * slo_ms(door) if door.service_ms is not None else _UNLIMITED_MS
    return filter_resource(
        FILTER,
        FILTER_TYPE,
        gradient_controller_config={
            "sample_aggregate_percentile": {"value": _PERCENTILE},
            "concurrency_limit_params": {
                "max_concurrency_limit": ceiling,
                "concurrency_update_interval": _UPDATE_INTERVAL,
            },
            "min_rtt_calc_params": {
                "fixed_value": f"{target_ms / 1000:.3f}s",
                "min_concurrency": floor,
                "buffer": {"value": 0},
            },
        },
    )


def measure_service_ms(port: int, model: str, texts: Sequence[str], instances: int, *, timeout_s: float) -> float:
    """Milliseconds that an instance of the Triton on `port` of the loopback takes for one text while all are busy.

    Alone it would be quicker than it ever is with its neighbours on the same cores. The better of two rounds counts.
    Raises `OSError` or `http.client.HTTPException` if it doesn't answer.
    """

    def ask(caller: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_s)
        try:
            for number in range(_PROBES):
                body = json.dumps(inference_body(texts[(caller + number) % len(texts)]))
                connection.request("POST", f"/v2/models/{model}/infer", body, {"content-type": "application/json"})
                answer = connection.getresponse()
                answer.read()
                if answer.status != http.client.OK:
                    raise http.client.HTTPException(f"status {answer.status}")
        finally:
            connection.close()

    callers = 2 * instances
    rounds = []
    with ThreadPoolExecutor(callers) as pool:
        for _ in range(2):
            started = time.perf_counter()
            list(pool.map(ask, range(callers)))
            rounds.append(time.perf_counter() - started)
    return 1000 * instances * min(rounds) / (callers * _PROBES)
