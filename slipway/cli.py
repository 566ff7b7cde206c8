"""The command line: thin. It reads options and calls `slipway.pipeline`; `slipway.cli_endings` makes the exit codes.

Progress and remarks go to stderr, results to stdout. click rather than typer: the exit codes here have meanings (2 is a
missed objective, 3 a failed gate or an invalid run), and click lets its own usage errors be given another one.
"""

import json
import sys
from pathlib import Path
from typing import Any, NoReturn

import click

from slipway import __version__, cli_loadtest, pipeline
from slipway.artifacts import Artifact, lineage, read_artifact
from slipway.cli_deploy import deploy
from slipway.cli_endings import ending
from slipway.cli_keys import keys
from slipway.cli_options import FOLDER, override, print_artifact
from slipway.cli_rollout import promote
from slipway.cli_score import score
from slipway.progress import say
from slipway.quantities import Megabytes, Milliseconds, Seconds
from slipway.recipe import Export, Serve, load_recipe, load_settings, recipe_schema

RECIPE = click.argument("recipe", type=click.Path(path_type=Path))


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="slipway")
def cli() -> None:
    """Labelled text in; a small, fast, proven and safe inference endpoint out."""


@cli.command()
@RECIPE
@click.option("--runs", type=FOLDER, default=Path("runs"), show_default=True, help="Folder that runs are kept in.")
@click.option("--force", type=click.Choice(pipeline.STAGES), help="Make this stage's artifact again, and all after it.")
def run(recipe: Path, runs: Path, force: str | None) -> int:
    """Go the whole way: train, export, serve, load-test, report."""
    loaded = load_recipe(recipe)
    folder = pipeline.RunFolder(runs / loaded.name)

    def forced(stage: str) -> bool:
        return force is not None and pipeline.STAGES.index(stage) >= pipeline.STAGES.index(force)

    pipeline.train(loaded, folder.checkpoint, force=forced("train"))
    pipeline.export(folder.checkpoint, folder.bundle, loaded.export, force=forced("export"))
    verdict = pipeline.load_test(
        folder.bundle,
        folder.verdict,
        loaded.serve,
        loaded.loadtest,
        folder.repository,
        force=forced("loadtest"),
    )
    page = pipeline.report(folder.path, folder.report, force=forced("report"))
    _print_summary(folder.path, page)
    say(f"Serve it: slipway serve {folder.bundle} --keyless")
    return cli_loadtest.conclude(verdict)


@cli.command()
@RECIPE
@click.option("--out", type=FOLDER, help="Where to write the checkpoint; by default runs/NAME/checkpoint.")
@click.option("--force", is_flag=True, help="Train even if the checkpoint there is up to date.")
def train(recipe: Path, out: Path | None, force: bool) -> None:
    """Recipe → checkpoint: fine-tune the base on the labelled table."""
    loaded = load_recipe(recipe)
    artifact = pipeline.train(loaded, out or Path("runs") / loaded.name / "checkpoint", force=force)
    print_artifact(artifact)


@cli.command()
@click.argument("checkpoint", type=FOLDER)
@click.option("--recipe", type=FOLDER, help="Take the settings of its export section.")
@click.option("--target", type=click.Choice(["cpu", "gpu"]), help="Kind of machine that will serve.")
@click.option(
    "--effort", type=click.Choice(["quantize", "quick", "full"]), help="How much is tried; quick unless told."
)
@click.option("--budget", type=float, help="Points of the dev metric that may be lost; 0: nothing measurable.")
@click.option("--max-latency", "max_latency_ms", type=Milliseconds(), help="The best that answers within, e.g. 5ms.")
@click.option("--max-size", "max_size_mb", type=Megabytes(), help="The best model that is no larger, e.g. 8MB.")
@click.option("--at", metavar="BATCHxTOKENS", help="Where latency decides, or texts: as they come; 1x32 unless told.")
@click.option(
    "--engine", "engines", type=click.Choice(["onnxruntime", "openvino"]), multiple=True, help="May be repeated."
)
@click.option("--threads", type=int, help="Threads per model instance.")
@click.option(
    "--vocabulary", type=click.Choice(["keep", "prune"]), help="Try models with the domain's tokens only, too."
)
@click.option("--unlabelled", help="Reference of a table of texts to distil from, e.g. file:texts.jsonl.")
@click.option("--seed", type=int, help="Of pruning, distillation and calibration.")
@click.option("--jobs", type=int, help="Variants that are made at a time.")
@click.option("--time-budget", "time_budget_s", type=Seconds(), help="Begin no variant after this, e.g. 5m.")
@click.option("--out", type=FOLDER, help="Where to write the bundle; by default beside the checkpoint.")
@click.option("--force", is_flag=True, help="Export even if the bundle there is up to date.")
def export(checkpoint: Path, recipe: Path | None, out: Path | None, force: bool, **options: Any) -> None:
    """Checkpoint → bundle: pruned, distilled, quantized, measured; the fastest that is still as good."""
    options["engines"] = list(options["engines"]) or None
    section = override(Export, load_settings(recipe).export if recipe else Export(), options)
    artifact = pipeline.export(checkpoint, out or checkpoint.absolute().parent / "bundle", section, force=force)
    _print_frontier(artifact)
    print_artifact(artifact)


@cli.command()
@click.argument("bundle", type=FOLDER)
@click.option("--recipe", type=FOLDER, help="Take the settings of its serve section.")
@click.option("--target", type=click.Choice(["cpu", "gpu"]), help="Which of its models; gpu needs SLIPWAY_TRITON.")
@click.option("--host", help="Address to listen on; 127.0.0.1 unless told.")
@click.option("--port", type=int, help="Port for HTTP and gRPC; 8080 unless told, 0 takes a free one.")
@click.option("--instances", type=int, help="Copies of the model.")
@click.option("--threads", type=int, help="Threads per copy.")
@click.option("--repository", type=FOLDER, help="Where to write the repository; by default beside the bundle.")
@click.option("--digest", help="sha256:… of the bundle's or repository's manifest; another is refused.")
@click.option("--keyless", is_flag=True, help="Let every program of this machine in, without credentials.")
def serve(
    bundle: Path, recipe: Path | None, repository: Path | None, digest: str | None, keyless: bool, **options: Any
) -> None:
    """Bundle → endpoint: Triton behind Envoy, until Ctrl-C."""
    import serving

    section = override(Serve, load_settings(recipe).serve if recipe else Serve(), options)
    if keyless:
        section = override(Serve, section, {"auth": section.auth.model_dump(mode="json") | {"keyless": "loopback"}})
    serving.serve(bundle, section, repository, digest=digest)


cli.add_command(promote)


@cli.command()
@click.argument("url")
@click.argument("out", type=FOLDER)
@click.option("--digest", required=True, help="sha256:… of the artifact's manifest, as slipway show prints it.")
def fetch(url: str, out: Path, digest: str) -> None:
    """Artifact in an object store (s3://, gs://, az://, https://) → a folder, every file checked."""
    from slipway.fetching import fetch as fetch_artifact

    artifact = fetch_artifact(url, out, digest=digest, told=lambda name, size: say(f"  {name}  {size:,} B"))
    print_artifact(artifact)


@cli.command()
@click.argument("run_or_artifact", type=FOLDER)
@click.option("--out", type=FOLDER, help="Where to write it; by default a folder report beside the artifacts.")
@click.option("--force", is_flag=True, help="Write it even if the report there is up to date.")
def report(run_or_artifact: Path, out: Path | None, force: bool) -> None:
    """Artifacts → report.html: one self-contained page."""
    is_run = run_or_artifact.is_dir() and not (run_or_artifact / "manifest.json").exists()
    default = run_or_artifact / "report" if is_run else run_or_artifact.absolute().parent / "report"
    artifact = pipeline.report(run_or_artifact, out or default, force=force)
    _print_summary(run_or_artifact, artifact)
    click.echo((artifact.path / "report.html").resolve())


@cli.command()
@click.argument("artifact", type=FOLDER)
@click.option("--json", "as_json", is_flag=True, help="The manifest as JSON.")
def show(artifact: Path, as_json: bool) -> None:
    """Print an artifact's manifest and lineage, after checking every digest."""
    found = read_artifact(artifact)
    if as_json:
        click.echo(found.manifest.model_dump_json(indent=2))
        return
    manifest = found.manifest
    click.echo(f"{manifest.kind} {manifest.name}  {found.path}")
    click.echo(f"  digest   {found.digest}")
    click.echo(f"  created  {manifest.created}")
    for name, value in manifest.metrics.items():
        click.echo(f"  {name}  {value:.4f}" if isinstance(value, float) else f"  {name}  {value}")
    click.echo("files")
    width = max((len(name) for name in manifest.files), default=0)
    for name, record in manifest.files.items():
        click.echo(f"  {name:<{width}}  {record.bytes:>12,} B  sha256 {record.sha256[:16]}…")
    click.echo("made by")
    for line in json.dumps(manifest.recipe, indent=2, ensure_ascii=False).splitlines():
        click.echo(f"  {line}")
    click.echo("versions  " + ", ".join(f"{name} {version}" for name, version in manifest.versions.items()))
    click.echo("lineage")
    click.echo(f"  {manifest.kind} {found.digest[:16]}…  {found.path}")
    for depth, parent, on_disk in lineage(found):
        where = str(on_disk.path) if on_disk else f"not on disk as it was (was at {parent.path})"
        click.echo(f"  {'  ' * depth}└─ {parent.kind} {parent.digest[:16]}…  {where}")


cli.add_command(cli_loadtest.loadtest)


@cli.group()
def recipe() -> None:
    """Look at recipes."""


@recipe.command("schema")
def recipe_schema_command() -> None:
    """Print the JSON schema of recipes, for editors."""
    click.echo(json.dumps(recipe_schema(), indent=2, ensure_ascii=False))


@recipe.command("check")
@RECIPE
def recipe_check(recipe: Path) -> None:
    """Validate a recipe and print it with every default filled in."""
    click.echo(json.dumps(load_recipe(recipe).model_dump(mode="json"), indent=2, ensure_ascii=False))


cli.add_command(deploy)
cli.add_command(keys)
cli.add_command(score)


def main(arguments: list[str] | None = None) -> NoReturn:
    """Entry point: runs the command line and exits with a code of `slipway.errors`."""
    sys.exit(ending(lambda: cli.main(arguments, prog_name="slipway", standalone_mode=False)))


def _print_frontier(bundle: Artifact) -> None:
    from rich.console import Console

    from slipway.bundle import FRONTIER, Variant
    from slipway.frontier import WIDTH, frontier_table

    variants = [Variant.model_validate(row) for row in bundle.json(FRONTIER)]
    table = frontier_table(variants)
    # What is cut off can't be widened: a narrow terminal breaks the lines itself, and a file has no width.
    shown = Console(highlight=False)
    Console(highlight=False, width=max(shown.width, WIDTH) if shown.is_terminal else 160).print(table)


def _print_summary(run: Path, page: Artifact) -> None:
    from rich.console import Console

    from slipway.report import collect, summary_table

    Console(highlight=False).print(summary_table(collect(run), page.path / "report.html"))
