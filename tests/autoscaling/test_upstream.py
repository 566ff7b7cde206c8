"""The tables of the real controller's tests: what went in and what came out, under the names they have there.

Source: `replica_calculator_test.go` and `horizontal_test.go` in
https://github.com/kubernetes/kubernetes/tree/master/pkg/controller/podautoscaler (Apache-2.0); figures only.
"""

from collections.abc import Mapping, Sequence

import pytest

from autoscaling.hpa import Autoscaler, Behavior, ScalingPolicy, ScalingRules
from autoscaling.recommendation import (
    CpuReadiness,
    ExternalAverage,
    ExternalValue,
    Metric,
    MetricError,
    Pod,
    PodsMetric,
    Sample,
    Tolerances,
    Utilization,
    replicas_for,
)

pytestmark = pytest.mark.unit

NOW, LONG_AGO, JUST_STARTED, THREE_MINUTES = 0.0, -1e9, 0.0, -180.0
READINESS = CpuReadiness(initialization_s=120.0, initial_readiness_s=10.0)
MAX_INT32, MAX_INT64 = 2**31 - 1, 2**63 - 1
USUAL = Tolerances()
CAREFUL = Tolerances(up=0.01)


def there(states: str) -> list[Pod]:
    """Pods by letter: r(eady), u(nready), h(ot: it just started), U(nready and hot), p(ending), d(eleted), x: ended."""
    return [
        Pod(
            f"p{number}",
            running=state != "p",
            ready=state in "rh",
            started_s=JUST_STARTED if state in "hU" else LONG_AGO,
            became_ready_s=LONG_AGO,
            deleting=state == "d",
        )
        for number, state in enumerate(states)
        if state != "x"
    ]


def samples(levels: Sequence[int]) -> dict[str, Sample]:
    return {f"p{number}": Sample(level, LONG_AGO) for number, level in enumerate(levels)}


def wanted(metric: Metric, states: str, current: int | None, tolerances: Tolerances = USUAL) -> int | None:
    pods = there(states)
    staying = sum(not pod.deleting for pod in pods)
    try:
        return replicas_for(metric, pods, staying if current is None else current, tolerances, NOW)
    except MetricError:
        return None


def utilization(levels: Sequence[int], requests: Sequence[int], percent: int) -> Utilization:
    by_pod: Mapping[str, int] = {f"p{number}": request for number, request in enumerate(requests)}
    return Utilization(samples(levels), by_pod, percent, READINESS)


FIVE = [100, 300, 500, 250, 250]


@pytest.mark.parametrize(
    ("states", "levels", "percent", "replicas"),
    [
        pytest.param("rrr", [300, 500, 700], 30, 5, id="scale up"),
        pytest.param("urr", [300, 500, 700], 30, 4, id="scale up: unready pod scales less"),
        pytest.param("hrr", [300, 500, 700], 30, 4, id="scale up: hot-CPU pod scales less"),
        pytest.param("ruu", [400, 500, 700], 30, 3, id="no scale: unready pods ignored"),
        pytest.param("rUU", [400, 500, 700], 30, 3, id="no scale: hot-CPU pods ignored"),
        pytest.param("rrxx", [500, 700], 30, 4, id="scale up: failed pods ignored"),
        pytest.param("rrdd", [500, 700], 30, 4, id="scale up: pods being deleted are ignored"),
        pytest.param("rrrrr", FIVE, 50, 3, id="scale down"),
        pytest.param("rrruu", FIVE, 50, 2, id="scale down: exclude unready pods"),
        pytest.param("rpppp", [100], 50, 1, id="scale down: exclude unscheduled pods"),
        pytest.param("rpppp", FIVE, 50, 1, id="scale down: container metric excludes unscheduled pods"),
        pytest.param("rrrhh", FIVE, 50, 2, id="scale down: ignore hot-CPU pods"),
        pytest.param("rrrhh", [100, 300, 500, 1000, 1000], 50, 2, id="scale down: container metric ignores hot-CPU"),
        pytest.param("rrrrrxx", FIVE, 50, 3, id="scale down: failed pods ignored"),
        pytest.param("rrrrrdd", FIVE, 50, 3, id="scale down: pods being deleted are ignored"),
    ],
)
def test_resource_scale(states: str, levels: list[int], percent: int, replicas: int) -> None:
    assert wanted(utilization(levels, [1000] * len(states), percent), states, None) == replicas


@pytest.mark.parametrize(
    ("levels", "tolerances", "replicas"),
    [
        pytest.param([1010, 1030, 1020], USUAL, 3, id="within default tolerance"),
        pytest.param([909, 1010, 1111], Tolerances(up=0.0, down=0.0), 4, id="outside 0% tolerance"),
        pytest.param([1890, 1910, 1900], Tolerances(up=2.0), 3, id="within 200% scale-up tolerance"),
        pytest.param([1100, 1080, 1090], Tolerances(up=0.08, down=2.0), 4, id="outside 8% scale-up tolerance"),
        pytest.param([660, 640, 650], Tolerances(down=0.36), 3, id="within 36% scale-down tolerance"),
        pytest.param([660, 640, 650], Tolerances(down=0.34), 2, id="outside 34% scale-down tolerance"),
    ],
)
def test_resource_tolerance(levels: list[int], tolerances: Tolerances, replicas: int) -> None:
    assert wanted(utilization(levels, [900, 1000, 1100], 100), "rrr", None, tolerances) == replicas


@pytest.mark.parametrize(
    ("states", "levels", "percent", "current", "replicas"),
    [
        pytest.param("rrrr", [4000, 9500, 3000, 7000, 3200, 2000], 100, 4, 24, id="superfluous metrics counted"),
        pytest.param("rrrr", [400, 95], 100, 4, 3, id="some pods missing metrics scales down"),
        pytest.param("rr", [1000], 100, 2, 2, id="no change: metric equal to target"),
        pytest.param("rr", [1900], 100, 2, 2, id="no change: metric above target"),
        pytest.param("rr", [600], 100, 2, 2, id="no change: metric below target"),
        pytest.param("urr", [100, 450], 50, 3, 3, id="no change: unready pod metric missing"),
        pytest.param("hrr", [100, 450], 50, 3, 3, id="no change: hot-CPU pod metric missing"),
        pytest.param("urr", [100, 2000], 50, 3, 4, id="scale up: unready pod metric missing"),
        pytest.param("Urr", [100, 2000], 50, 3, 4, id="scale up: hot-CPU pod metric missing"),
        pytest.param("urrr", [100, 100, 100], 50, 4, 3, id="scale down: unready pod metric missing"),
        pytest.param("rrr", [100, 100], 50, 2, 2, id="rolling update with maxSurge: extra pod missing metric"),
        pytest.param("rrrr", [], 100, 4, None, id="no metrics returned from metrics API"),
    ],
)
def test_resource_missing_metrics(
    states: str, levels: list[int], percent: int, current: int, replicas: int | None
) -> None:
    assert wanted(utilization(levels, [1000] * len(states), percent), states, current) == replicas


def test_resource_missing_metrics_scale_down_target_over_100() -> None:
    assert wanted(utilization([200, 100, 100], [1000, 1000, 2000, 2000], 300), "urrr", None) == 2


def test_resource_missing_metrics_missing_cpu_request_on_container() -> None:
    assert wanted(utilization([200], [], 100), "r", None) is None


def test_resource_missing_metrics_disjoint_pod_and_metric_names() -> None:
    stranger = Utilization({"an-older-pod-name": Sample(100)}, {"p0": 1000}, 100, READINESS)
    assert wanted(stranger, "r", None) is None


@pytest.mark.parametrize(("percent", "replicas"), [(56, 9), (55, 10)])
def test_computed_tolerance_alg_implementation(percent: int, replicas: int) -> None:
    requests = [400, 200, 310, 290, 302, 298, 301, 299, 300, 300]
    assert wanted(utilization([150] * 10, requests, percent), "r" * 10, None) == replicas


@pytest.mark.parametrize(
    ("ready", "started", "changed", "at", "window", "counts"),
    [
        pytest.param(True, -60, -30, 0, 30, True, id="ready pod with fresh metrics during initialization period"),
        pytest.param(True, -60, -30, 0, 60, False, id="ready pod without fresh metrics during initialization period"),
        pytest.param(False, -600, -594, LONG_AGO, 0, False, id="unready pod during initialization period"),
        pytest.param(True, -180, -180, -120, 60, True, id="ready pod without fresh metrics after initialization"),
        pytest.param(False, -600, -540, LONG_AGO, 0, True, id="unready pod that was ready after initialization"),
        pytest.param(False, -600, -590, LONG_AGO, 0, True, id="unready pod that has never been ready after it"),
    ],
)
def test_group_pods(ready: bool, started: float, changed: float, at: float, window: float, counts: bool) -> None:
    pod = Pod("bentham", running=True, ready=ready, started_s=started, became_ready_s=changed)
    assert READINESS.counts(pod, Sample(1, at, window), NOW) == counts


@pytest.mark.parametrize(
    ("states", "levels", "target", "current", "tolerances", "replicas"),
    [
        pytest.param("rrr", [20000, 10000, 30000], 15000, 3, USUAL, 4, id="scale up"),
        pytest.param("rrU", [50000, 10000, 30000], 15000, 3, USUAL, 6, id="scale up: unready hot-CPU pod scales less"),
        pytest.param("UrU", [50000, 15000, 30000], 15000, 3, USUAL, 7, id="scale up: unready hot-CPU pods avoid down"),
        pytest.param("rrrrr", [12000] * 5, 20000, 5, USUAL, 3, id="scale down"),
        pytest.param("rrr", [20000, 21000, 21000], 20000, 3, USUAL, 3, id="within default tolerance"),
        pytest.param("rrr", [20000, 21000, 21000], 20000, 3, CAREFUL, 4, id="outside configurable 1% tolerance"),
        pytest.param("rrrrr", [20000, 19000, 21000], 20000, 5, USUAL, 5, id="no change: missing metrics"),
        pytest.param("rrr", [10000, 10000], 17000, 2, USUAL, 2, id="rolling update with maxSurge: extra pod missing"),
    ],
)
def test_pod_metric(
    states: str, levels: list[int], target: int, current: int, tolerances: Tolerances, replicas: int
) -> None:
    assert wanted(PodsMetric(samples(levels), target), states, current, tolerances) == replicas


@pytest.mark.parametrize(
    ("states", "value", "target", "tolerances", "replicas"),
    [
        pytest.param("rrr", 20000, 15000, USUAL, 4, id="object: scale up"),
        pytest.param("rrr", MAX_INT64, 1, USUAL, MAX_INT32, id="object: very large metric saturates replicas"),
        pytest.param("uru", 50000, 10000, USUAL, 5, id="object: scale up: ignores unready pods"),
        pytest.param("rrrrr", 12000, 20000, USUAL, 3, id="object: scale down"),
        pytest.param("rrr", 20666, 20000, USUAL, 3, id="object: within default tolerance"),
        pytest.param("rrr", 20666, 20000, CAREFUL, 4, id="object: outside configurable 1% tolerance"),
        pytest.param("uru", 8600, 4400, USUAL, 2, id="external: scale down: ignores unready pods"),
        pytest.param("rrrrr", 8600, 14334, USUAL, 3, id="external: scale down"),
        pytest.param("rrr", 8600, 8888, USUAL, 3, id="external: within default tolerance"),
        pytest.param("rrr", 8900, 8800, CAREFUL, 4, id="external: outside configurable 1% tolerance"),
        pytest.param("rrr", MAX_INT64, MAX_INT64, USUAL, 3, id="external: usage overflow caps at MaxInt64"),
    ],
)
def test_object_and_external_metric(
    states: str, value: int, target: int, tolerances: Tolerances, replicas: int
) -> None:
    assert wanted(ExternalValue(value, target), states, None, tolerances) == replicas


@pytest.mark.parametrize(
    ("there_now", "total", "target", "tolerances", "replicas"),
    [
        pytest.param(1, MAX_INT64, 1, USUAL, MAX_INT32, id="external: replica count overflow saturates to MaxInt32"),
        pytest.param(1, MAX_INT64, MAX_INT64, USUAL, 1, id="usage overflow with huge target leaves replicas unchanged"),
        pytest.param(0, 20000, 5000, USUAL, 4, id="statusReplicas zero does not overflow usage"),
        pytest.param(0, 0, 5000, USUAL, 0, id="statusReplicas zero and metric zero does not underflow"),
        pytest.param(3, 8600, 2150, USUAL, 4, id="external: scale up"),
        pytest.param(5, 8600, 2867, USUAL, 3, id="external: scale down"),
        pytest.param(3, 8600, 2900, USUAL, 3, id="external: within default tolerance"),
        pytest.param(3, 8600, 2800, CAREFUL, 4, id="external: outside configurable 1% tolerance"),
        pytest.param(3, 20000, 5000, USUAL, 4, id="object: scale up"),
        pytest.param(5, 6000, 2000, USUAL, 3, id="object: scale down"),
        pytest.param(4, 20166, 5000, USUAL, 4, id="object: within default tolerance"),
        pytest.param(4, 20208, 5000, CAREFUL, 5, id="object: outside configurable 1% tolerance"),
    ],
)
def test_object_and_external_per_pod_metric(
    there_now: int, total: int, target: int, tolerances: Tolerances, replicas: int
) -> None:
    assert wanted(ExternalAverage(total, target), "r" * there_now, None, tolerances) == replicas


def rules(pods: int, pods_s: int, percent: int, percent_s: int, stabilization_s: int = 0) -> ScalingRules:
    policies = [("Pods", pods, pods_s), ("Percent", percent, percent_s)]
    return ScalingRules(
        stabilization_s,
        tuple(ScalingPolicy(kind, value, period) for kind, value, period in policies if value),  # type: ignore[arg-type]
        tolerance=0.0,
    )


ANYTHING = rules(100_000, 1800, 0, 0)
DEFAULT_UP = rules(4, 15, 100, 15)
DEFAULT_DOWN = rules(0, 0, 100, 15)


def asked(count: int) -> list[Metric]:
    return [ExternalAverage(1000 * count, 1000)]


def after(events: Sequence[int], behavior: Behavior, current: int, desired: int, minimum: int, maximum: int) -> int:
    """What comes of `desired` after changes of the replicas in the last two minutes, made before it was limited so."""
    autoscaler = Autoscaler(minimum, maximum, Behavior(ANYTHING, ANYTHING))
    size = current - sum(events)
    for number, change in enumerate(events):
        assert (
            autoscaler.reconcile(-110.0 + 25 * number, size, there("r" * size), asked(size + change)) == size + change
        )
        size += change
    autoscaler.behavior = behavior
    return autoscaler.reconcile(NOW, current, there("r" * current), asked(desired))


UP = [1, 5, 9]
AGED = [8, 12, 9, 11]


@pytest.mark.parametrize(
    ("events", "up", "current", "desired", "minimum", "maximum", "replicas"),
    [
        pytest.param([], DEFAULT_UP, 100, 1000, 100, 150, 150, id="more than the maximum replica count"),
        pytest.param([], rules(0, 0, 1, 60), 3, 1000, 1, 2000, 4, id="scaleUpLimit < maxReplicas with user policies"),
        pytest.param([], DEFAULT_UP, 10, 50, 1, 1000, 20, id="default behavior"),
        pytest.param([], rules(100, 60, 100, 60), 10, 500, 1, 1000, 110, id="pods policy larger than percent policy"),
        pytest.param([], rules(2, 60, 100, 60), 10, 500, 1, 1000, 20, id="percent policy larger than pods policy"),
        pytest.param([], rules(100, 60, 0, 0), 10, 50, 1, 1000, 50, id="large pod policy"),
        pytest.param([], rules(30, 60, 0, 0), 10, 50, 1, 1000, 40, id="pod policy limitation"),
        pytest.param([], rules(0, 0, 200, 60), 10, 50, 1, 1000, 30, id="percent policy limitation"),
        pytest.param(UP, rules(300, 60, 0, 0), 100, 500, 1, 200, 200, id="max, large pod policy and events"),
        pytest.param(UP, rules(0, 0, 10000, 60), 100, 500, 1, 200, 200, id="max, large percent policy and events"),
        pytest.param(UP, rules(5, 120, 0, 0), 100, 500, 1, 1000, 100, id="a lot of recent scale up events"),
        pytest.param(UP, rules(150, 120, 0, 0), 100, 500, 1, 1000, 235, id="pod policy and previous events"),
        pytest.param(UP, rules(0, 0, 200, 120), 100, 500, 1, 1000, 255, id="percent policy and previous events"),
        pytest.param([4, -2], rules(0, 0, 300, 300), 6, 24, 1, 1000, 16, id="previous scale up and down events"),
        pytest.param(AGED, rules(1000, 60, 0, 0), 100, 200, 1, 1000, 200, id="outdated for one behavior"),
        pytest.param(AGED, rules(1000, 120, 100, 60), 100, 200, 1, 1000, 200, id="not outdated, two policies"),
        pytest.param(AGED, rules(1000, 30, 100, 60), 100, 200, 1, 1000, 200, id="outdated, two policies"),
    ],
)
def test_rate_of_scaling_up(
    events: list[int], up: ScalingRules, current: int, desired: int, minimum: int, maximum: int, replicas: int
) -> None:
    assert after(events, Behavior(up, DEFAULT_DOWN), current, desired, minimum, maximum) == replicas


DOWN = [-1, -5, -9]


@pytest.mark.parametrize(
    ("events", "down", "current", "desired", "minimum", "replicas"),
    [
        pytest.param([], rules(20, 60, 1, 60), 100, 2, 1, 80, id="percent policy larger than pod policy"),
        pytest.param([], rules(2, 60, 1, 60), 100, 2, 1, 98, id="pod policy larger than percent policy"),
        pytest.param([], rules(100, 60, 0, 0), 10, 0, 1, 1, id="MinReplicas, large pod policy"),
        pytest.param([], rules(0, 0, 100, 60), 10, 2, 5, 5, id="MinReplicas, large percent policy"),
        pytest.param([], rules(5, 60, 0, 0), 10, 2, 1, 5, id="pod policy limitation"),
        pytest.param([], rules(0, 0, 50, 60), 10, 5, 1, 5, id="percent policy limitation"),
        pytest.param(DOWN, DEFAULT_DOWN, 10, 5, 1, 5, id="default policy and previous events"),
        pytest.param(DOWN, rules(115, 120, 0, 0), 100, 0, 1, 1, id="MinReplicas=nil, large pod policy and events"),
        pytest.param(DOWN, rules(130, 120, 0, 0), 100, 0, 5, 5, id="MinReplicas, large pod policy and events"),
        pytest.param(DOWN, rules(0, 0, 100, 120), 100, 2, 5, 5, id="MinReplicas, large percent policy and events"),
        pytest.param(DOWN, rules(5, 120, 0, 0), 100, 2, 1, 100, id="pod policy limitation and previous events"),
        pytest.param([-2, -4, -6], rules(0, 0, 50, 120), 100, 0, 1, 56, id="percent policy and previous events"),
        pytest.param([2, -4], rules(0, 0, 50, 180), 10, 1, 1, 6, id="previous scale up and down events"),
        pytest.param([-10] * 3, rules(0, 0, 10, 120), 100, 0, 1, 100, id="events preventing further scale down"),
        pytest.param([-10] * 3, rules(0, 0, 1000, 120), 10, 5, 1, 5, id="events still allowing more scale down"),
    ],
)
def test_rate_of_scaling_down(
    events: list[int], down: ScalingRules, current: int, desired: int, minimum: int, replicas: int
) -> None:
    assert after(events, Behavior(DEFAULT_UP, down), current, desired, minimum, 1000) == replicas


MINUTE = 60.0


@pytest.mark.parametrize(
    ("recommended", "current", "desired", "up_s", "down_s", "replicas"),
    [
        pytest.param([], 100, 5, 0, 0, 5, id="empty recommendations for scaling down"),
        pytest.param([(4, 2), (5, 1)], 100, 3, 0, 180, 5, id="simple scale down stabilization"),
        pytest.param([(4, 2), (5, 1)], 1, 7, 300, 0, 4, id="simple scale up stabilization"),
        pytest.param([(1, 2), (2, 1)], 100, 3, 300, 0, 3, id="no scale down stabilization"),
        pytest.param([(4, 2), (5, 1)], 1, 3, 0, 300, 3, id="no scale up stabilization"),
        pytest.param([(10, 10), (9, 9)], 100, 3, 0, 0, 3, id="no scale down stabilization, reuse element"),
        pytest.param([(10, 10), (9, 9)], 1, 100, 0, 0, 100, id="no scale up stabilization, reuse element"),
        pytest.param([(10, 10), (9, 9), (5, 2), (4, 1)], 100, 3, 0, 180, 5, id="scale down, reuse obsolete element"),
        pytest.param([(10, 100), (9, 3), (5, 2), (6, 1)], 1, 100, 300, 0, 5, id="scale up, reuse obsolete element"),
        pytest.param([(2, 100), (3, 3)], 2, 1, 300, 300, 2, id="do not scale up when prenormalized rec goes down"),
        pytest.param([(2, 100), (1, 3)], 2, 3, 300, 300, 2, id="do not scale down when prenormalized rec goes up"),
    ],
)
def test_normalize_desired_replicas_with_behavior(
    recommended: list[tuple[int, int]], current: int, desired: int, up_s: int, down_s: int, replicas: int
) -> None:
    behavior = Behavior(rules(100_000, 15, 0, 0, up_s), rules(100_000, 15, 0, 0, down_s))
    autoscaler = Autoscaler(1, 1000, behavior)
    for count, minutes in [(current, 1000), *recommended]:
        autoscaler.reconcile(-MINUTE * minutes, current, there("r" * current), asked(count))
    assert autoscaler.reconcile(NOW, current, there("r" * current), asked(desired)) == replicas


@pytest.mark.parametrize(
    ("levels", "percent", "current", "replicas"),
    [
        pytest.param([300, 400, 500], 30, 3, 4, id="TestScaleUpOneMetricEmpty"),
        pytest.param(FIVE, 50, 5, 5, id="TestNoScaleDownOneMetricEmpty"),
    ],
)
def test_one_metric_empty(levels: list[int], percent: int, current: int, replicas: int) -> None:
    metrics: list[Metric] = [ExternalValue(None, 100), utilization(levels, [1000] * current, percent)]
    assert Autoscaler(2, 6, behavior=None).reconcile(NOW, current, there("r" * current), metrics) == replicas


def test_scale_up_limit_exceeds_max() -> None:
    autoscaler = Autoscaler(1, 20, Behavior(rules(0, 0, 700, 60), DEFAULT_DOWN))
    assert autoscaler.reconcile(NOW, 3, there("rrr"), [utilization([100, 200, 300], [100] * 3, 10)]) == 20
