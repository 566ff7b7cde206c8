"""Triton's own account of where time goes: queue and compute, from the counters on its metrics page.

The counters only grow (`nv_inference_*`, documented in Triton's user guide under metrics), so two readings and a
subtraction give the means between them. Of an ensemble, each step counts its own queue and compute, and the ensemble
counts the requests: the times of all models are added, the requests are those of the model that was asked.
"""

import re
import urllib.error
import urllib.request
from dataclasses import dataclass

from slipway.errors import LoadTestError
from slipway.timeline import Work

_LINE = re.compile(r"^(nv_inference_\w+)\{([^}]*)\}\s+([0-9.eE+]+)", re.MULTILINE)
_MODEL = re.compile(r'(?:^|,)model="([^"]*)"')
_COMPUTE = ("compute_input_duration_us", "compute_infer_duration_us", "compute_output_duration_us")
_TIMEOUT_S = 2.0


@dataclass(frozen=True)
class Counters:
    """Totals since the server started."""

    requests: float
    executions: float
    queue_us: float
    compute_us: float

    @classmethod
    def parse(cls, page: str, model: str) -> "Counters":
        """From a metrics page in Prometheus' text format; `model` is the one that is asked.

        Raises `LoadTestError` if the page says nothing about it.
        """
        totals: dict[tuple[str, str], float] = {}
        for name, labels, value in _LINE.findall(page):
            if found := _MODEL.search(labels):
                key = (name.removeprefix("nv_inference_"), found[1])
                totals[key] = totals.get(key, 0.0) + float(value)
        if ("request_success", model) not in totals:
            raise LoadTestError(f"the page has no nv_inference_request_success of model {model!r}")

        def over_models(*names: str) -> float:
            return sum(value for (name, _), value in totals.items() if name in names)

        requests = totals["request_success", model]
        executions = totals.get(("exec_count", model), 0.0)
        return cls(requests, executions, over_models("queue_duration_us"), over_models(*_COMPUTE))

    def since(self, earlier: "Counters") -> Work | None:
        """What was done since `earlier`; None if nothing was, or if the server began anew meanwhile."""
        requests = self.requests - earlier.requests
        if requests <= 0 or self.queue_us < earlier.queue_us or self.compute_us < earlier.compute_us:
            return None
        return Work(
            requests=round(requests),
            executions=max(round(self.executions - earlier.executions), 0),
            queue_ms=(self.queue_us - earlier.queue_us) / requests / 1000,
            compute_ms=(self.compute_us - earlier.compute_us) / requests / 1000,
        )


def read_counters(url: str, model: str) -> Counters:
    """Read them now; raises `LoadTestError` with what is wrong with `url`."""
    if not url.startswith(("http://", "https://")):
        raise LoadTestError(f"{url!r} is not the address of a metrics page; allowed: http://HOST:PORT/metrics.")
    try:
        # No proxy: the page of a server on this machine is not asked for elsewhere.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(url, timeout=_TIMEOUT_S) as answer:
            page = answer.read().decode(errors="replace")
        return Counters.parse(page, model)
    except (OSError, urllib.error.URLError, ValueError) as error:
        raise LoadTestError(f"{url} can't be read: {error}.") from error
    except LoadTestError as error:
        raise LoadTestError(f"{url} is no metrics page of this endpoint's Triton: {error}.") from error
