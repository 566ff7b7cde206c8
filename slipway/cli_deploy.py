"""`slipway deploy …`: what a deployment takes, before there is one."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from slipway.errors import EXIT_SLO_MISSED, SlipwayError
from slipway.progress import progress, say
from slipway.quantities import FiniteRange, Milliseconds, Seconds

_FILE = click.Path(path_type=Path)
_OF_CONTROLLER = "The controller's flag --horizontal-pod-autoscaler-…"


@click.group()
def deploy() -> None:
    """What a deployment takes, before there is one."""


@deploy.command()
@click.option(
    "--traffic",
    required=True,
    metavar="SHAPE",
    help="constant:500, ramp:200..5000, spike:500..4000, diurnal:200..5000, or a file of arrival times.",
)
@click.option(
    "--duration", type=Seconds(), default=3600.0, help="Of the traffic; 1h unless told. A day for diurnal: 24h."
)
@click.option(
    "--measured",
    type=_FILE,
    help="Capacity of one replica, from slipway loadtest --capacity: service time, instances and objective.",
)
@click.option("--service", "service_ms", type=Milliseconds(), help="Time of a request in a model instance.")
@click.option("--instances", type=click.IntRange(1), help="Model instances of a replica.")
@click.option(
    "--variation",
    type=FiniteRange(0, 10),
    default=0.5,
    show_default=True,
    help="Standard deviation of the service time over its mean.",
)
@click.option(
    "--max-in-flight",
    type=click.IntRange(1),
    default=64,
    show_default=True,
    help="Requests that a replica holds; more are refused.",
)
@click.option("--slo", "slo_ms", type=Milliseconds(), help="Latency that the objective is about.")
@click.option(
    "--percent",
    type=FiniteRange(50, 100, max_open=True),
    default=99.0,
    show_default=True,
    help="Of all requests that must be within it.",
)
@click.option(
    "--pending", "pending_s", type=Seconds(), default=10.0, help="From asking for a pod to its start; 10s unless told."
)
@click.option(
    "--starting",
    "starting_s",
    type=Seconds(),
    default=20.0,
    help="From its start to its first answer; 20s unless told.",
)
@click.option("--values", type=_FILE, help="YAML file with the chart's values; the chart's own defaults without.")
@click.option("--price", type=FiniteRange(0), help="Of a replica for an hour.")
@click.option("--seed", type=click.IntRange(0), default=0, help="Of the arrivals.")
@click.option("--out", type=_FILE, help="Folder for plan.json and plan.svg.")
def plan(**options: Any) -> int:
    """Simulate the autoscaler under a traffic: does the objective hold, with how many replicas?

    Exit code 2 if it doesn't.
    """
    from rich.console import Console

    from autoscaling import report
    from autoscaling.plan import Objective, make_plan
    from autoscaling.pods import Startup
    from autoscaling.settings import read_values
    from autoscaling.traffic_argument import parse_traffic

    traffic = parse_traffic(options["traffic"], int(options["duration"]))
    try:
        service, slo_ms = _replica(options)
        values = read_values(options["values"], service.instances)
        objective = Objective(slo_ms, options["percent"])
        with progress(f"Simulating {traffic.name} traffic"):
            made = make_plan(
                traffic,
                service,
                values,
                objective,
                Startup(options["pending_s"], options["starting_s"]),
                seed=options["seed"],
            )
    except ValueError as error:
        raise SlipwayError(f"{error}.") from error
    shown = Console(highlight=False)
    # A file has no width: what is cut off there can't be widened.
    console = shown if shown.is_terminal else Console(highlight=False, width=160)
    console.print(report.outcomes_table(made, options["price"]))
    console.print(report.growth_table(made, values))
    if options["out"] is not None:
        _write(options["out"], made)
    say(report.sentence(made))
    return 0 if made.holds else EXIT_SLO_MISSED


def _replica(options: dict[str, Any]) -> tuple[Any, float]:
    """One replica and the latency that is asked of it: as measured, and as the options say otherwise."""
    from autoscaling.measured import read_measured
    from autoscaling.queueing import Service

    measured = read_measured(options["measured"]) if options["measured"] is not None else None

    def figure(option: str, name: str, otherwise: float | None = None) -> Any:
        found = options[option] or (getattr(measured, name) if measured else otherwise)
        if found is None:
            where = f"{options['measured']} doesn't say it" if measured else "or --measured CAPACITY"
            raise SlipwayError(f"--{option.removesuffix('_ms')} is needed; {where}.")
        return found

    overhead = {"overhead_ms": measured.overhead_ms} if measured else {}
    service = Service(
        figure("service_ms", "service_ms"),
        instances=figure("instances", "instances", otherwise=1),
        variation=options["variation"],
        max_in_flight=options["max_in_flight"],
        **overhead,
    )
    return service, figure("slo_ms", "objective_ms")


def _write(out: Path, made: Any) -> None:
    from autoscaling.plot import plan_plot
    from slipway.report.plots import standalone

    out.mkdir(parents=True, exist_ok=True)
    (out / "plan.svg").write_text(standalone(plan_plot(made)), encoding="utf-8")
    content = {
        "traffic": made.traffic.name,
        "objective": asdict(made.objective),
        "capacity_per_replica": made.capacity,
        "holds": made.holds,
        "outcomes": [asdict(outcome) for outcome in made.outcomes],
    }
    (out / "plan.json").write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    click.echo(out)


@deploy.command()
@click.argument("hpa", type=_FILE)
@click.argument("trace", type=_FILE)
@click.option("--tolerance", type=FiniteRange(0), default=0.1, show_default=True, help=_OF_CONTROLLER)
@click.option("--downscale-stabilization", type=Seconds(), default="5m", show_default=True, help=_OF_CONTROLLER)
@click.option("--cpu-initialization-period", type=Seconds(), default="5m", show_default=True, help=_OF_CONTROLLER)
@click.option("--initial-readiness-delay", type=Seconds(), default="30s", show_default=True, help=_OF_CONTROLLER)
def replay(hpa: Path, trace: Path, **flags: float) -> int:
    """Decide again what an autoscaler decided: HPA is its manifest, TRACE what it saw (docs/autoscaling.md).

    Prints a JSON line for each sync. Exit code 2 if the trace has decisions and one differs.
    """
    from autoscaling.hpa import Controller
    from autoscaling.manifest import Scaler
    from autoscaling.recommendation import CpuReadiness
    from autoscaling.replay import replay as decide

    steps = compared = differing = 0
    if flags["downscale_stabilization"] > 3600:
        raise SlipwayError("--downscale-stabilization can be an hour at most.")
    readiness = CpuReadiness(flags["cpu_initialization_period"], flags["initial_readiness_delay"])
    controller = Controller(flags["tolerance"], int(flags["downscale_stabilization"]), readiness)
    for step in decide(Scaler.read(hpa, controller), trace):
        line = {"at": step.at_s, "replicas": step.current, "desired": step.wanted}
        click.echo(json.dumps(line if step.recorded is None else line | {"recorded": step.recorded}))
        steps, compared = steps + 1, compared + (step.recorded is not None)
        differing += not step.agrees
    say(f"{steps} syncs, {compared} recorded decisions, {differing} differ.")
    return EXIT_SLO_MISSED if differing else 0


@deploy.command("values")
@click.argument("bundle", type=_FILE)
@click.option(
    "--verdict",
    "evidence",
    type=_FILE,
    required=True,
    help="Capacity of one replica (slipway loadtest --capacity), or a verdict.",
)
@click.option("--hardware", help="As the chart has it: cpu, nvidia-l4, …; the bundle's target unless told.")
@click.option("--peak", type=FiniteRange(0, min_open=True), help="Requests/s at most: sets maxReplicas.")
@click.option(
    "--usual",
    type=FiniteRange(0, min_open=True),
    help="Requests/s usually: sets minReplicas and, without a peak, twice as many as maxReplicas.",
)
@click.option("--instances", type=click.IntRange(1), help="Model instances of what was measured, if it doesn't say.")
@click.option(
    "--startup", "startup_s", type=Seconds(), help="From a pod's start to its first answer, if it doesn't say."
)
@click.option("--out", type=_FILE, help="File to write; standard output without.")
def values(bundle: Path, evidence: Path, out: Path | None, **wanted: Any) -> None:
    """Write the chart's values from what was measured: capacity, objective, memory, start-up."""
    from deployment.values import Evidence, Wanted, values_file
    from slipway.bundle import Bundle

    opened = Bundle.open(bundle)
    text = values_file(opened, Evidence.read(evidence, opened), Wanted(**wanted))
    if out is None:
        click.echo(text, nl=False)
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(text, encoding="utf-8")
    click.echo(out)
