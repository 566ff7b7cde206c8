"""A plan for the terminal: the policies beside each other, what growth takes, and one sentence."""

from rich.box import SIMPLE_HEAD
from rich.table import Table

from autoscaling.growth import sizes
from autoscaling.hpa import DEFAULT_UP
from autoscaling.plan import Plan
from autoscaling.settings import AutoscalingValues

_RATES = (1e2, 1e3, 1e4, 1e5, 1e6)


def outcomes_table(plan: Plan, price: float | None) -> Table:
    """A row for each policy."""
    table = Table(
        title=f"{plan.traffic.name}, {len(plan.traffic) / 3600:.1f} h, {plan.capacity:,.0f} requests/s a replica",
        box=SIMPLE_HEAD,
    )
    table.add_column("policy")
    headers = [
        "replicas at most",
        "replica-hours",
        *(["cost"] if price is not None else []),
        "late",
        "refused",
        "p50 ms",
        "p99 ms",
        "",
    ]
    for header in headers:
        table.add_column(header, justify="right")
    for outcome in plan.outcomes:
        table.add_row(
            outcome.policy,
            f"{outcome.most_replicas:,}",
            f"{outcome.replica_hours:,.1f}",
            *([f"{outcome.replica_hours * price:,.2f}"] if price is not None else []),
            f"{outcome.late:.3%}",
            f"{outcome.refused:.3%}",
            _ms(outcome.p50_ms),
            _ms(outcome.p99_ms),
            "holds" if plan.objective.met_by(outcome) else "misses",
        )
    return table


def growth_table(plan: Plan, values: AutoscalingValues) -> Table:
    """What 100 to 1,000,000 requests/s take, at the load that the autoscaler kept its replicas at."""
    table = Table(title="Growth on paper", box=SIMPLE_HEAD)
    headers = ("requests/s", "replicas", "gateway cores", "samples/s", "Mb/s", "minutes from the least", "beyond")
    for header in headers:
        table.add_column(header, justify="left" if header == "beyond" else "right")
    least, rules = max(1, values.minReplicas), values.behavior.scaleUp.rules(DEFAULT_UP)
    for size in sizes(_RATES, plan.capacity, headroom=_load(plan), least=least, rules=rules):
        beyond = list(size.beyond)
        if size.replicas > values.maxReplicas:
            beyond.insert(0, f"maxReplicas {values.maxReplicas}")
        table.add_row(
            f"{size.rate:,.0f}",
            f"{size.replicas:,}",
            f"{size.gateway_cores:,}",
            f"{size.samples_per_s:,.0f}",
            f"{size.bytes_per_s * 8 / 1e6:,.0f}",
            f"{size.minutes_to_grow:.1f}",
            "; ".join(beyond) or "–",
        )
    return table


def sentence(plan: Plan) -> str:
    """Whether the objective holds, and at what price beside what could be had."""
    chosen, perfect = plan.chosen, next(each for each in plan.outcomes if each.policy == "perfect knowledge")
    verdict = "holds" if plan.holds else "does not hold"
    ratio = chosen.replica_hours / perfect.replica_hours if perfect.replica_hours else 1.0
    return (
        f"{plan.objective.percent:g} % within {plan.objective.latency_ms:g} ms {verdict}: {chosen.late:.3%} are late "
        f"or refused, with {ratio:.2f} times the replica-hours of perfect knowledge."
    )


def _ms(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"


def _load(plan: Plan) -> float:
    """Share of the replicas' capacity that the autoscaler had in use, on average."""
    rates = sum(moment.rate for moment in plan.chosen.moments)
    replicas = sum(moment.ready for moment in plan.chosen.moments)
    return float(min(1.0, max(0.05, rates / (plan.capacity * max(1, replicas)))))
