"""`slipway loadtest`: one run, a search for the capacity, a comparison of two endpoints, a worker for any of them.

    slipway loadtest BUNDLE                  is the objective met at this rate?
    slipway loadtest BUNDLE --capacity       which rate is the highest that meets it?
    slipway loadtest compare A B             which of two is faster, and by how much?
    slipway loadtest worker --master H:P     sends for one of the above that runs on another machine

The first word is a bundle far more often than a command, so `run` may be left out; a folder that is named like one is
written `./compare`.
"""

import contextlib
import difflib
import re
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from slipway.artifacts import Artifact
from slipway.cli_options import FOLDER, override, print_artifact
from slipway.errors import InvalidRunError, SlipwayError
from slipway.progress import console, say
from slipway.quantities import Seconds
from slipway.recipe import CapacitySearch, Compare, LoadTest, Serve, Slo, load_settings

_SHORT = {"p50": "p50_ms", "p95": "p95_ms", "p99": "p99_ms", "p999": "p999_ms"}
_PLACE = re.compile(r"(?P<host>[A-Za-z0-9_.-]+):(?P<port>\d{1,5})")
_WORKERS_WAIT_S = 300.0
_CONTENDER = re.compile(r"(?:(?P<bundle>.+)@)?(?P<address>(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:]+\]):\d{1,5})")


class _WithDefault(click.Group):
    """A group whose command `run` may be left out."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = ["run", *args]
        return super().parse_args(ctx, args)


@click.group(cls=_WithDefault, options_metavar="", subcommand_metavar="BUNDLE [OPTIONS] | compare A B | worker")
def loadtest() -> None:
    """Endpoint → verdict: open-loop load, answers checked. Exit code 2 if the objective is missed, 3 if invalid."""


_OUTPUTS = [
    click.option("--junit", type=FOLDER, metavar="FILE", help="Write JUnit XML, a test case for each objective."),
    click.option("--json", "json_file", type=FOLDER, metavar="FILE", help="Write the outcome as JSON."),
    click.option(
        "--allow-remote", is_flag=True, help="Drive load at an address that is not this machine's; it must be yours."
    ),
    click.option("--texts", type=FOLDER, help="Table with text and predicted, instead of the bundle's own."),
    click.option("--seed", type=int, help="Of the schedule and the order of texts."),
    click.option(
        "--wait",
        "wait_s",
        type=Seconds(),
        help="For workers of other machines (5m unless told), and for the endpoint (not at all unless told).",
    ),
    click.option(
        "--master",
        metavar="HOST:PORT",
        help="Start no workers: listen here for those that were started elsewhere (slipway loadtest worker).",
    ),
    click.option("--workers", type=int, help="Processes that share the load."),
    click.option(
        "--protocol",
        "protocols",
        type=click.Choice(["grpc", "http", "generate"]),
        multiple=True,
        help="May be repeated.",
    ),
    click.option(
        "--arrivals",
        type=click.Choice(["poisson", "constant", "ramp", "steps", "spikes", "diurnal"]),
        help="Arrival process; the recipe can set its shape.",
    ),
    click.option("--rate", type=float, help="Requests/s; where a search for the capacity starts."),
    click.option("--recipe", type=FOLDER, help="Take the settings of its loadtest section."),
]


def _outputs(command: Any) -> Any:
    for option in _OUTPUTS:
        command = option(command)
    return command


@loadtest.command("run")
@click.argument("bundle", type=FOLDER)
@click.option("--address", default="127.0.0.1:8080", show_default=True, help="host:port of the endpoint.")
@_outputs
@click.option("--duration", "duration_s", type=float, help="Seconds that are measured.")
@click.option("--warmup", "warmup_s", type=float, help="Seconds of load before that.")
@click.option(
    "--slo", multiple=True, metavar="NAME=LIMIT", help="p99_ms=50, error_rate=0.001, goodput=0.99, …; may be repeated."
)
@click.option(
    "--expected",
    "versions",
    multiple=True,
    metavar="VERSION=BUNDLE",
    help="While a canary runs: what answers of that model version are checked against; may be repeated.",
)
@click.option("--capacity", "seek_capacity", is_flag=True, help="Find the highest rate that meets the objective.")
@click.option("--time-budget", "time_budget_s", type=Seconds(), help="What --capacity may take, e.g. 5m.")
@click.option("--at-least", type=float, help="Requests/s that --capacity must find, or the exit code is 2.")
@click.option("--metrics", "metrics_url", metavar="URL", help="Triton's metrics page; found by itself on this machine.")
@click.option("--out", type=FOLDER, help="Where to write the artifact; by default beside the bundle.")
def run(
    bundle: Path,
    recipe: Path | None,
    address: str,
    slo: tuple[str, ...],
    texts: Path | None,
    versions: tuple[str, ...],
    allow_remote: bool,
    seek_capacity: bool,
    time_budget_s: float | None,
    at_least: float | None,
    metrics_url: str | None,
    master: str | None,
    wait_s: float | None,
    junit: Path | None,
    json_file: Path | None,
    out: Path | None,
    **options: Any,
) -> int:
    """Load the endpoint of BUNDLE. Exit code 2 if the objective is missed, 3 if the run is invalid."""
    import loadtests
    from slipway.bundle import Bundle

    out = out or bundle.absolute().parent / ("capacity" if seek_capacity else "verdict")
    loadtests.require_outputs(out, junit=junit, json_file=json_file)
    for name, wish in (("--time-budget", time_budget_s), ("--at-least", at_least)):
        if wish is not None and not seek_capacity:
            raise SlipwayError(f"{name} is about the capacity; say --capacity as well, or leave it out.")
    section = load_settings(recipe).loadtest if recipe else LoadTest()
    if slo:
        options["slo"] = section.slo.model_dump(mode="json") | dict(_parse_objective(text) for text in slo)
    section = override(LoadTest, section, _given(options))
    wanted = override(CapacitySearch, section.capacity, {"time_budget_s": time_budget_s, "at_least": at_least})
    section = section.model_copy(update={"capacity": wanted})
    make = loadtests.find_capacity if seek_capacity else loadtests.run
    artifact = make(
        Bundle.open(bundle),
        address,
        section,
        out,
        texts=texts,
        allow_remote=allow_remote,
        versions={version: Bundle.open(Path(path)) for version, path in map(_parse_version, versions)},
        metrics_url=metrics_url,
        elsewhere=_elsewhere(master, wait_s),
        wait_s=wait_s or 0.0,
    )
    return _finish(artifact, junit, json_file)


@loadtest.command("compare")
@click.argument("a", metavar="A")
@click.argument("b", metavar="B")
@click.option("--bundle", type=FOLDER, help="Says what a side must answer that is only an address.")
@_outputs
@click.option("--pairs", type=int, help="Blocks on each side.")
@click.option("--block", "block_s", type=float, help="Seconds of a block that are measured.")
@click.option("--max-p99-ratio", type=float, help="B's p99 over A's; exit code 2 if it is above.")
@click.option("--out", type=FOLDER, help="Where to write the artifact; ./comparison unless told.")
def compare(
    a: str,
    b: str,
    bundle: Path | None,
    recipe: Path | None,
    texts: Path | None,
    allow_remote: bool,
    pairs: int | None,
    block_s: float | None,
    max_p99_ratio: float | None,
    master: str | None,
    wait_s: float | None,
    junit: Path | None,
    json_file: Path | None,
    out: Path | None,
    **options: Any,
) -> int:
    """The same load on A and B, in short blocks in turn: ratios with confidence intervals.

    Each is a running endpoint (HOST:PORT, or BUNDLE@HOST:PORT) or a BUNDLE, which is served for the comparison.
    """
    import loadtests

    out = out or Path("comparison")
    loadtests.require_outputs(out, junit=junit, json_file=json_file)
    loaded = load_settings(recipe) if recipe else None
    section = override(LoadTest, loaded.loadtest if loaded else LoadTest(), _given(options))
    wanted = {"pairs": pairs, "block_s": block_s, "max_p99_ratio": max_p99_ratio}
    section = section.model_copy(update={"compare": override(Compare, section.compare, wanted)})
    with _contenders([a, b], bundle, loaded.serve if loaded else Serve()) as (left, right):
        artifact = loadtests.compare(
            left,
            right,
            section,
            out,
            texts=texts,
            allow_remote=allow_remote,
            elsewhere=_elsewhere(master, wait_s),
        )
    return _finish(artifact, junit, json_file)


@loadtest.command("worker")
@click.option("--master", metavar="HOST:PORT", required=True, help="Where the load test waits for its workers.")
@click.option(
    "--allow-remote",
    is_flag=True,
    help="Send to an address that is not this machine's if the master says so; both must be yours.",
)
@click.option("--once", is_flag=True, help="End after the first run, with code 1 if it came to nothing.")
@click.option("--wait", "wait_s", type=Seconds(), help="End when no master has called for so long.")
def worker(master: str, allow_remote: bool, once: bool, wait_s: float | None) -> None:
    """Send for a load test that runs on another machine with --master; needs no bundle and no recipe.

    Credentials are read from this machine's environment and files, under the names that the recipe gives them.
    """
    import loadtests

    host, port = _place(master)
    loadtests.work(host, port, allow_remote=allow_remote, once=once, wait_s=wait_s)


def _place(text: str) -> tuple[str, int]:
    match = _PLACE.fullmatch(text)
    if match is None or not 0 < int(match["port"]) < 65536:
        raise SlipwayError(f"--master {text!r} is not HOST:PORT, such as 0.0.0.0:5557.")
    return match["host"], int(match["port"])


def _elsewhere(master: str | None, wait_s: float | None) -> Any:
    """Where workers of other machines come, as a `loadtests.Elsewhere`; None if they are started here."""
    import loadtests

    if master is None:
        return None
    host, port = _place(master)
    try:
        # ZeroMQ listens to addresses, not to names.
        number = socket.getaddrinfo(host, port, socket.AF_INET, socket.SOCK_STREAM)[0][4][0]
    except OSError as error:
        raise SlipwayError(f"--master {master}: {host} can't be resolved: {error.strerror}.") from error
    return loadtests.Elsewhere(str(number), port, wait_s or _WORKERS_WAIT_S)


def conclude(artifact: Artifact) -> int:
    """The exit code for `artifact`; raises `InvalidRunError` if it judges nothing."""
    import loadtests

    outcome = loadtests.outcome_of(artifact)
    if outcome.state == "invalid":
        raise InvalidRunError(f"the load test is invalid: {outcome.reason}")
    if outcome.state == "missed":
        say(outcome.reason)
    return outcome.exit_code


def _finish(artifact: Artifact, junit: Path | None, json_file: Path | None) -> int:
    import loadtests

    console.print(loadtests.summary_of(artifact))
    loadtests.write_outputs(artifact, junit=junit, json_file=json_file)
    print_artifact(artifact)
    return conclude(artifact)


@contextlib.contextmanager
def _contenders(sides: list[str], bundle: Path | None, serve: Serve) -> Iterator[list[Any]]:
    """The sides as `loadtests.Contender`s; what isn't running yet is served until the block ends."""
    import loadtests
    from slipway.bundle import Bundle
    from slipway.pipeline import served

    with contextlib.ExitStack() as running, tempfile.TemporaryDirectory() as scratch:
        found = []
        for letter, side in zip("AB", sides, strict=True):
            match = _CONTENDER.fullmatch(side)
            path = Path(match["bundle"] or bundle or "") if match else Path(side)
            if match and not (match["bundle"] or bundle):
                raise SlipwayError(
                    f"{side} is an address, and nothing says what must be answered there; write BUNDLE@{side}, or give "
                    "--bundle BUNDLE."
                )
            opened = Bundle.open(path)
            if match:
                found.append(loadtests.Contender(f"{letter} ({side})", opened, match["address"]))
            else:
                endpoint = running.enter_context(served(opened, Path(scratch) / letter, serve))
                found.append(loadtests.Contender(f"{letter} ({path})", opened, endpoint.address, endpoint.describe()))
        yield found


def _given(options: dict[str, Any]) -> dict[str, Any]:
    """Without an option that may be repeated and wasn't given at all."""
    return {name: list(value) if name == "protocols" else value for name, value in options.items() if value != ()}


def _parse_objective(text: str) -> tuple[str, float]:
    name, _, limit = text.partition("=")
    name = _SHORT.get(name, name)
    try:
        value = float(limit.removesuffix("ms"))
        value = int(value) if value.is_integer() else value
    except ValueError:
        raise SlipwayError(f"--slo {text!r} is not NAME=LIMIT, such as p99_ms=50 or error_rate=0.") from None
    if name not in Slo.model_fields:
        near = difflib.get_close_matches(name, Slo.model_fields, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise SlipwayError(f"--slo {text!r}: {name} is not judged; allowed: {', '.join(Slo.model_fields)}.{hint}")
    return name, value


def _parse_version(text: str) -> tuple[str, str]:
    version, equals, path = text.partition("=")
    if not (version and equals and path):
        raise SlipwayError(f"--expected {text!r} is not VERSION=BUNDLE, such as 2=runs/new/bundle.")
    return version, path
