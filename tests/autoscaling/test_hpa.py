"""The controller's decisions, worked out by hand from its source."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoscaling.hpa import Autoscaler, Behavior, ScalingPolicy, ScalingRules
from autoscaling.recommendation import (
    ExternalAverage,
    ExternalValue,
    MetricError,
    Pod,
    PodsMetric,
    Sample,
    Tolerances,
    Utilization,
    replicas_for,
)

pytestmark = pytest.mark.unit

LATE = 10_000.0
"""Long after every pod began."""


def pods(count: int, *, pending: int = 0, unready: int = 0) -> list[Pod]:
    running = count - pending
    return [
        Pod(f"p{number}", running=number < running, ready=number < running - unready, became_ready_s=10.0)
        for number in range(count)
    ]


def metric(*values: float, target: float) -> PodsMetric:
    found = {f"p{number}": Sample(round(1000 * value)) for number, value in enumerate(values)}
    return PodsMetric(found, round(1000 * target))


def wanted(metric: object, there: list[Pod], current: int | None = None, tolerances: Tolerances | None = None) -> int:
    size = len(there) if current is None else current
    return replicas_for(metric, there, size, tolerances or Tolerances(), LATE)  # type: ignore[arg-type]


def test_replicas_follow_the_ratio_of_average_and_target() -> None:
    assert wanted(metric(20, 10, 30, target=15), pods(3)) == 4
    assert wanted(metric(10, 10, 10, target=30), pods(3)) == 1


@pytest.mark.parametrize(("value", "replicas"), [(11.0, 10), (11.02, 12), (9.0, 10), (8.9, 9)])
def test_a_tenth_off_the_target_is_tolerated(value: float, replicas: int) -> None:
    assert wanted(metric(*[value] * 10, target=10), pods(10)) == replicas


def test_tolerances_may_differ_by_direction() -> None:
    careful = Tolerances(up=0.0, down=0.3)
    assert wanted(metric(*[10.2] * 10, target=10), pods(10), tolerances=careful) == 11
    assert wanted(metric(*[7.5] * 10, target=10), pods(10), tolerances=careful) == 10


def test_the_average_is_an_integer_division() -> None:
    # (1 + 1 + 2) / 3 thousandths are 1 thousandth, exactly at the target.
    found = {"p0": Sample(1), "p1": Sample(1), "p2": Sample(2)}
    assert wanted(PodsMetric(found, 1), pods(3)) == 3


def test_a_pod_without_a_metric_counts_as_idle_on_the_way_up() -> None:
    assert wanted(metric(30, 30, target=10), pods(3)) == 6
    assert wanted(metric(30, 30, 0, target=10), pods(3)) == 6


def test_a_pod_without_a_metric_counts_as_at_the_target_on_the_way_down() -> None:
    assert wanted(metric(1, 1, 1, target=10), pods(4)) == 2
    assert wanted(metric(1, 1, 1, 10, target=10), pods(4)) == 2


def test_pods_without_a_metric_never_turn_the_direction_round() -> None:
    # Two pods at 12 with a target of 10 ask for more; the two silent ones would bring the average to 6.
    assert wanted(metric(12, 12, target=10), pods(4)) == 4


def test_a_pending_pod_counts_as_idle_on_the_way_up_and_not_at_all_on_the_way_down() -> None:
    assert wanted(metric(30, 30, target=10), pods(3, pending=1)) == 6
    assert wanted(metric(2, 2, target=10), pods(3, pending=1)) == 1


def test_readiness_is_not_asked_for_but_with_cpu() -> None:
    assert wanted(metric(30, 30, 30, target=10), pods(3, unready=3)) == 9


def test_without_a_metric_of_any_pod_there_is_no_answer() -> None:
    with pytest.raises(MetricError):
        wanted(metric(target=10), pods(2))
    with pytest.raises(MetricError):
        wanted(metric(10, target=10), [])


def test_a_metric_of_a_pod_that_is_gone_still_counts_in_the_average() -> None:
    # (10 + 10 + 40) / 3 is twice the target, of the two pods that are there.
    assert wanted(metric(10, 10, 40, target=10), pods(2)) == 4
    leaving = [*pods(2), Pod("p2", running=True, ready=True, deleting=True)]
    assert wanted(metric(10, 10, 40, target=10), leaving, current=2) == 2


def cpu(*milli: int, percent: int, at_s: float = LATE) -> Utilization:
    found = {f"p{number}": Sample(value, at_s) for number, value in enumerate(milli)}
    return Utilization(found, {f"p{number}": 1000 for number in range(9)}, percent)


def test_cpu_is_a_share_of_what_is_requested() -> None:
    assert wanted(cpu(300, 500, 700, percent=30), pods(3)) == 5


def test_a_utilization_is_cut_to_a_whole_per_cent() -> None:
    # 66.9 % of 60 % would be beyond the tolerance; 66 % of 60 % is exactly at it.
    assert wanted(cpu(669, 669, percent=60), pods(2)) == 2


def test_a_young_unready_pod_counts_as_idle_on_the_way_up() -> None:
    there = [Pod("p0", True, False, LATE - 20, LATE - 20), *pods(3)[1:]]
    # The two ready ones are at 60 %, twice the target; with an idle third 40 %, which asks for 4.
    assert wanted(cpu(300, 500, 700, percent=30), there) == 4


def test_a_sample_from_before_a_young_pod_was_ready_is_not_taken() -> None:
    there = [Pod("p0", True, True, LATE - 100, LATE - 30), *pods(3)[1:]]
    assert wanted(cpu(5000, 300, 300, percent=30, at_s=LATE), there) == 3
    there = [Pod("p0", True, True, LATE - 100, LATE - 60), *pods(3)[1:]]
    assert wanted(cpu(5000, 300, 300, percent=30, at_s=LATE), there) == 19


def test_a_silent_pod_counts_as_fully_used_on_the_way_down() -> None:
    # 10 % of 50 %, with a third pod at 100 %: 40 %, so 3 pods at 0.8 make 3.
    assert wanted(cpu(100, 100, percent=50), pods(3)) == 3


def test_a_metric_of_a_pod_that_is_gone_is_in_no_share_but_among_the_pods() -> None:
    # The two that are there use 60 % of 30 %; with a silent third 40 %, of which the controller makes 4/3 x 4.
    there = [*pods(2), Pod("silent", running=True, ready=True)]
    found = {"p0": Sample(600), "p1": Sample(600), "gone": Sample(9000)}
    assert wanted(Utilization(found, dict.fromkeys(["p0", "p1", "silent"], 1000), 30), there) == 6
    assert wanted(Utilization(found, dict.fromkeys(["p0", "p1"], 1000), 30), there[:2]) == 4


def test_an_external_total_is_divided_by_the_pods_that_are_there() -> None:
    assert wanted(ExternalAverage(95_000, 10_000), pods(9)) == 9
    assert wanted(ExternalAverage(101_000, 10_000), pods(9)) == 11
    assert wanted(ExternalAverage(101_000, 10_000), [], current=0) == 11
    assert wanted(ExternalAverage(0, 10_000), [], current=0) == 0


def test_an_external_value_scales_the_ready_pods() -> None:
    assert wanted(ExternalValue(20_000, 10_000), pods(4, unready=1)) == 6
    assert wanted(ExternalValue(20_000, 10_000), [], current=0) == 2


def test_a_missing_external_metric_is_no_answer() -> None:
    with pytest.raises(MetricError):
        wanted(ExternalAverage(None, 1000), pods(2))


# The autoscaler over time


def run(autoscaler: Autoscaler, asked: list[int], *, start: int, every_s: float = 15.0) -> list[int]:
    """Replicas after each sync, if the metric asks for so many pods of a size of one."""
    sizes, current = [], start
    for number, count in enumerate(asked):
        current = autoscaler.reconcile(number * every_s, current, pods(current), [ExternalAverage(1000 * count, 1000)])
        sizes.append(current)
    return sizes


def test_by_default_it_doubles_or_adds_four_every_15_seconds() -> None:
    assert run(Autoscaler(1, 100), [60] * 6, start=1) == [5, 10, 20, 40, 60, 60]


def test_without_a_behavior_it_doubles_or_goes_to_four() -> None:
    assert run(Autoscaler(1, 100, behavior=None), [60] * 6, start=1) == [4, 8, 16, 32, 60, 60]


def test_it_comes_down_after_five_minutes_of_asking_for_less() -> None:
    sizes = run(Autoscaler(1, 100), [10, *[2] * 25], start=10)
    # The high recommendation was made at 0 s and has to be older than 300 s.
    assert sizes.index(2) == 20
    assert set(sizes[:20]) == {10}


def test_without_a_behavior_it_comes_down_after_five_minutes_as_well() -> None:
    sizes = run(Autoscaler(1, 100, behavior=None), [10, *[2] * 25], start=10)
    assert sizes.index(2) == 21


def test_a_dip_that_is_shorter_than_the_window_changes_nothing() -> None:
    assert set(run(Autoscaler(1, 100), [10, 2, 2, 2, 10, 2, 2, 10], start=10)) == {10}


def rules(*policies: ScalingPolicy, select: str = "Max", stabilization_s: int = 0) -> ScalingRules:
    return ScalingRules(stabilization_s, policies, select)  # type: ignore[arg-type]


def test_a_policy_counts_what_was_added_in_its_period() -> None:
    slow = Behavior(up=rules(ScalingPolicy("Pods", 2, 60)))
    assert run(Autoscaler(1, 100, slow), [50] * 9, start=1) == [3, 3, 3, 3, 5, 5, 5, 5, 7]


def test_the_smaller_of_two_policies_is_taken_where_it_is_asked_for() -> None:
    both = (ScalingPolicy("Pods", 3, 15), ScalingPolicy("Percent", 100, 15))
    assert run(Autoscaler(1, 100, Behavior(up=rules(*both, select="Min"))), [50] * 3, start=2) == [4, 7, 10]
    assert run(Autoscaler(1, 100, Behavior(up=rules(*both, select="Max"))), [50] * 3, start=2) == [5, 10, 20]


def test_scaling_down_by_per_cent_rounds_what_is_left_down() -> None:
    half = Behavior(down=rules(ScalingPolicy("Percent", 50, 60)))
    assert run(Autoscaler(1, 100, half), [1] * 9, start=9) == [4, 4, 4, 4, 2, 2, 2, 2, 1]


def test_a_disabled_direction_stays() -> None:
    never = Behavior(down=rules(ScalingPolicy("Pods", 1, 15), select="Disabled"))
    assert set(run(Autoscaler(1, 100, never), [1] * 30, start=9)) == {9}


def test_a_window_for_scaling_up_takes_the_lowest_recommendation_in_it() -> None:
    patient = Behavior(up=rules(ScalingPolicy("Pods", 100, 15), stabilization_s=60))
    assert run(Autoscaler(1, 100, patient), [8] * 6, start=2) == [2, 2, 2, 2, 8, 8]


def test_what_was_removed_in_the_period_may_be_added_again_on_top() -> None:
    behavior = Behavior(up=rules(ScalingPolicy("Pods", 1, 60)), down=rules(ScalingPolicy("Pods", 4, 60)))
    assert run(Autoscaler(1, 100, behavior), [6, 20, 20], start=10) == [6, 11, 11]


def test_the_range_is_kept() -> None:
    assert run(Autoscaler(2, 6), [60, 60, 60], start=4) == [6, 6, 6]
    assert run(Autoscaler(3, 6), [3], start=1) == [3]
    assert run(Autoscaler(1, 6), [6], start=9) == [6]


def test_a_workload_of_no_replicas_is_switched_off_unless_it_may_be_empty() -> None:
    assert run(Autoscaler(1, 6), [5, 5], start=0) == [0, 0]
    assert run(Autoscaler(0, 6), [5, 5], start=0) == [4, 5]


def test_a_metric_that_is_missing_keeps_it_from_going_down_but_not_from_going_up() -> None:
    autoscaler, there = Autoscaler(1, 100), pods(5)
    missing, low, high = ExternalAverage(None, 1000), ExternalAverage(1000, 1000), ExternalAverage(9000, 1000)
    assert autoscaler.reconcile(0.0, 5, there, [missing, low]) == 5
    assert autoscaler.reconcile(15.0, 5, there, [missing, high]) == 9
    assert Autoscaler(1, 100).reconcile(0.0, 5, there, [missing]) == 5


def test_of_several_metrics_the_one_that_asks_for_most_decides() -> None:
    metrics = [ExternalAverage(3000, 1000), ExternalAverage(7000, 1000)]
    assert Autoscaler(1, 100).reconcile(0.0, 5, pods(5), metrics) == 7


@settings(deadline=None)
@given(
    asked=st.lists(st.integers(0, 500), min_size=1, max_size=60),
    low=st.integers(1, 5),
    span=st.integers(0, 50),
    up_s=st.integers(0, 120),
    down_s=st.integers(0, 400),
)
def test_it_stays_in_its_range_and_within_its_pace(
    asked: list[int], low: int, span: int, up_s: int, down_s: int
) -> None:
    behavior = Behavior(
        up=rules(ScalingPolicy("Pods", 4, 15), ScalingPolicy("Percent", 100, 15), stabilization_s=up_s),
        down=rules(ScalingPolicy("Pods", 3, 15), stabilization_s=down_s),
    )
    sizes = [low, *run(Autoscaler(low, low + span, behavior), asked, start=low)]
    for before, after in pairwise(sizes):
        assert low <= after <= low + span
        assert after <= max(before + 4, 2 * before)
        assert after >= before - 3


@pytest.mark.parametrize("value", [0, -1])
def test_a_policy_of_nothing_is_refused(value: int) -> None:
    with pytest.raises(ValueError, match="needs a value"):
        ScalingPolicy("Pods", value, 15)
