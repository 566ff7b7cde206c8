"""`slipway promote`: change the model of a running endpoint."""

import json
from pathlib import Path

import click

from slipway.artifacts import read_artifact
from slipway.cli_options import override
from slipway.progress import say
from slipway.quantities import Seconds
from slipway.recipe import Rollout, load_settings


@click.command()
@click.argument("repository_or_bundle", type=click.Path(path_type=Path), required=False)
@click.option(
    "--recipe", type=click.Path(path_type=Path), help="Take the bounds and steps of its serve.rollout section."
)
@click.option("--canary", type=int, multiple=True, metavar="PERCENT", help="Step before all of it; may be repeated.")
@click.option("--shadow", type=int, metavar="PERCENT", help="Send it copies of so many requests first.")
@click.option("--bake", "bake_s", type=Seconds(), help="How long each step is watched, e.g. 60s.")
@click.option("--address", help="host:port or port of the endpoint, if several run.")
@click.option("--model", help="Name of the endpoint's model, for --status and --abort.")
@click.option("--repository", type=click.Path(path_type=Path), help="Where to write a bundle's repository.")
@click.option("--status", "what", flag_value="status", help="Say what is served and how a promotion goes.")
@click.option("--abort", "what", flag_value="abort", help="Go back to the version before.")
def promote(
    repository_or_bundle: Path | None,
    recipe: Path | None,
    canary: tuple[int, ...],
    shadow: int | None,
    bake_s: float | None,
    address: str | None,
    model: str | None,
    repository: Path | None,
    what: str | None,
) -> None:
    """Bundle → the running endpoint, step by step, without losing a request.

    The new version is loaded beside the old, gets a growing share of the requests and takes over if it keeps the bounds
    of the recipe; otherwise the old one serves on. Exit code 1: it was refused. 2: it was rolled back. Ctrl-C stops
    listening, not the promotion.
    """
    from serving.rollout.endpoints import find_endpoint
    from serving.rollout.promote import abort, status
    from serving.rollout.promote import promote as promote_on

    if what is not None:
        endpoint = find_endpoint(model, address)
        click.echo(status(endpoint) if what == "status" else abort(endpoint))
        return
    if repository_or_bundle is None:
        raise click.UsageError("name a bundle or a repository, or ask for --status or --abort.")
    endpoint = find_endpoint(model or read_artifact(repository_or_bundle, verify=False).manifest.name, address)
    served = Rollout.model_validate_json(json.dumps(endpoint.settings["rollout"]))
    section = load_settings(recipe).serve.rollout if recipe else served
    steps = [*(percent for percent in canary if percent != 100), 100] if canary else None
    chosen = {"steps": steps, "shadow": shadow, "bake_s": bake_s}
    try:
        click.echo(promote_on(endpoint, repository_or_bundle, override(Rollout, section, chosen), say, repository))
    except KeyboardInterrupt:
        say("The promotion goes on; slipway promote --status tells how, --abort ends it.")
        raise
    say(f"The next start serves it only if it is told to: slipway serve {repository_or_bundle}")
