"""Replicas as pods: they are asked for, start, become ready, are scraped; and what the autoscaler then sees of them.

A new pod is pending for `pending_s` (scheduling, a node, pulling the image), runs for `starting_s` until its model is
loaded and answers, and only then gets requests. A signal is the average over `window_s` of what a scraper saw, which is
at most `scrape_s` old; a pod has none before two scrapes, as a rate needs two points. Pods that are taken away are the
youngest, as a ReplicaSet prefers.
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from autoscaling.recommendation import Pod, Sample


@dataclass(frozen=True)
class Startup:
    """How long a pod takes to help."""

    pending_s: float = 10.0
    """From being asked for to running: scheduling and pulling the image; add a node's start where there is none."""
    starting_s: float = 20.0
    """From running to ready: loading and checking the model."""

    @property
    def total_s(self) -> float:
        """From being asked for to the first request."""
        return self.pending_s + self.starting_s


@dataclass(frozen=True)
class Scraping:
    """How the signals get to the autoscaler."""

    scrape_s: float = 15.0
    window_s: float = 60.0
    """Of the averages, as in `rate(…[1m])`."""


@dataclass(frozen=True)
class Observation:
    """One pod in one step of the simulation."""

    seconds: float
    requests: float = 0.0
    """That were taken."""
    wait_s: float = 0.0
    sojourn_s: float = 0.0
    """Waiting and running, summed over the requests; over the seconds, it is the mean number in flight."""
    busy_s: float = 0.0
    """Of instances, summed."""


PROMETHEUS = Scraping()
METRICS_SERVER = Scraping(scrape_s=15.0, window_s=30.0)


Signal = Callable[[list[Observation]], float]


def queue_ms(seen: list[Observation]) -> float:
    """Mean time in the queue per request, ms; 0 without requests, so that the metric is there at zero traffic."""
    requests = sum(each.requests for each in seen)
    return 1e3 * sum(each.wait_s for each in seen) / requests if requests else 0.0


def in_flight(seen: list[Observation]) -> float:
    """Mean requests that wait or run (Little's law)."""
    return sum(each.sojourn_s for each in seen) / sum(each.seconds for each in seen)


def busy_instances(seen: list[Observation]) -> float:
    """Mean instances that work; times the cores of one, it is the CPU that inference takes."""
    return sum(each.busy_s for each in seen) / sum(each.seconds for each in seen)


@dataclass
class Replica:
    """One pod and what was seen of it."""

    name: str
    asked_s: float
    startup: Startup
    seen: deque[tuple[float, Observation]] = field(default_factory=deque)
    """By the end of the step."""

    def is_running(self, now_s: float) -> bool:
        """Whether its containers have started."""
        return now_s >= self.asked_s + self.startup.pending_s

    def is_ready(self, now_s: float) -> bool:
        """Whether it gets requests."""
        return now_s >= self.asked_s + self.startup.total_s

    def as_pod(self, now_s: float) -> Pod:
        """What the controller knows."""
        running_s = self.asked_s + self.startup.pending_s
        ready = self.is_ready(now_s)
        return Pod(
            name=self.name,
            running=self.is_running(now_s),
            ready=ready,
            started_s=running_s,
            became_ready_s=self.asked_s + self.startup.total_s if ready else running_s,
        )

    def observe(self, now_s: float, observation: Observation, keep_s: float) -> None:
        """Remember a step that ended at `now_s`."""
        self.seen.append((now_s, observation))
        while self.seen and self.seen[0][0] < now_s - keep_s:
            self.seen.popleft()

    def sample(self, signal: Signal, now_s: float, scraping: Scraping) -> Sample | None:
        """The signal at the last scrape before `now_s`; None before the pod was scraped twice."""
        scraped_s = now_s // scraping.scrape_s * scraping.scrape_s
        first_s = -(-(self.asked_s + self.startup.pending_s) // scraping.scrape_s) * scraping.scrape_s
        if scraped_s < first_s + scraping.scrape_s:
            return None
        window = [seen for at, seen in self.seen if scraped_s - scraping.window_s < at <= scraped_s]
        if not window:
            return None
        return Sample(round(1e3 * signal(window)), scraped_s, scraping.window_s)


def samples(replicas: Sequence[Replica], signal: Signal, now_s: float, scraping: Scraping) -> Mapping[str, Sample]:
    """The signal of every pod that has one."""
    found = {replica.name: replica.sample(signal, now_s, scraping) for replica in replicas}
    return {name: sample for name, sample in found.items() if sample is not None}
