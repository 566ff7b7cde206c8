"""Texts that both versions are asked beside the traffic, to see whether they agree and how fast each is.

Callers don't say what the right answer is, and Envoy throws away what a shadow answers. So agreement is measured on
texts that are known: the bundles' checks and their texts of the test split (`expected.parquet`), asked of both Tritons
directly. Alternatives weighed: comparing live answers needs a proxy of our own in every request's way; logging both
answers puts texts where they don't belong. The price: the texts are those of training time, not today's.

The same asking makes up for callers that are missing: an endpoint without traffic can still be judged, on requests of
its own, one at a time, alternating so that both versions meet the same neighbours.
"""

import http.client
import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from serving.protocol import LABEL, inference_body
from serving.rollout.judgement import Window, wilson
from serving.server.triton import LOOPBACK
from serving.server.versions import ServedVersion
from slipway.errors import ServingError


@dataclass(frozen=True)
class Agreement:
    """How many texts got the same label from both."""

    texts: int
    agreed: int

    @property
    def share(self) -> float:
        """0 to 1; 1 if nothing was asked."""
        return self.agreed / self.texts if self.texts else 1.0

    def __str__(self) -> str:
        low, high = wilson(self.agreed, self.texts)
        return (
            f"both versions give the same label to {self.agreed} of {self.texts} texts ({self.share:.1%}; "
            f"95 % interval {low:.1%} to {high:.1%})"
        )


class AskingError(ServingError):
    """A version didn't answer a text."""


@dataclass
class Asked:
    """One version, and what asking it gave."""

    served: ServedVersion
    model: str
    timeout_s: float
    errors: int = 0
    milliseconds: list[float] = field(default_factory=list)

    def ask(self, text: str) -> str:
        """The label of `text`; raises `AskingError`. Either is counted."""
        started = time.perf_counter()
        try:
            label = self._ask(text)
        except (OSError, http.client.HTTPException, ValueError, LookupError) as error:
            self.errors += 1
            raise AskingError(f"version {self.served.version} did not answer a text of its bundle: {error}") from error
        self.milliseconds.append(1000 * (time.perf_counter() - started))
        return label

    def window(self) -> Window:
        """What was counted."""
        latencies = tuple((value, 0.0, 1) for value in sorted(self.milliseconds))
        return Window(len(self.milliseconds) + self.errors, self.errors, latencies)

    def _ask(self, text: str) -> str:
        connection = http.client.HTTPConnection(LOOPBACK, self.served.server.http_port, timeout=self.timeout_s)
        try:
            body = json.dumps(inference_body(text))
            connection.request("POST", f"/v2/models/{self.model}/infer", body, {"content-type": "application/json"})
            response = connection.getresponse()
            content = json.loads(response.read())
            if response.status != http.client.OK:
                raise ValueError(f"{response.status}: {content.get('error', '')}")
            return next(str(output["data"][0]) for output in content["outputs"] if output["name"] == LABEL)
        finally:
            connection.close()


class Sampling:
    """Asks both versions the same texts, over and over."""

    def __init__(self, stable: Asked, candidate: Asked, texts: Sequence[str]) -> None:
        self.stable = stable
        self.candidate = candidate
        self._texts = texts
        self._next = 0

    def restart(self) -> None:
        """Forget what was counted."""
        for asked in (self.stable, self.candidate):
            asked.errors = 0
            asked.milliseconds = []

    def compare(self, between: Callable[[], None]) -> Agreement:
        """Ask every text once, after `between`. One that only the candidate can't answer is a difference."""
        agreed = asked = 0
        for text in self._texts:
            between()
            try:
                expected = self.stable.ask(text)
            except AskingError:
                continue
            asked += 1
            try:
                agreed += self.candidate.ask(text) == expected
            except AskingError:
                continue
        return Agreement(asked, agreed)

    def slowness(self) -> float:
        """How many times as long the candidate took for a text as the stable version, by their medians."""
        both = self.candidate.milliseconds, self.stable.milliseconds
        ours, theirs = (statistics.median(one) if one else 1.0 for one in both)
        return ours / theirs

    def ask_next(self) -> None:
        """Ask one text of both."""
        text = self._texts[self._next % len(self._texts)]
        self._next += 1
        for asked in (self.stable, self.candidate):
            try:
                asked.ask(text)
            except AskingError:
                continue
