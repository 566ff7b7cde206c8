"""`slipway score`: a table in, the same table with predictions out; the analyst's path.

Through a running endpoint, or directly through a bundle: no server then, and all cores for it.
"""

import contextlib
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from slipway.errors import SlipwayError
from slipway.progress import progress, say

if TYPE_CHECKING:
    from serving.client import Answer

    Classify = Callable[[Iterator[str]], Iterator[Answer]]

_ADDRESS = re.compile(r"(?:(?P<scheme>https?|grpcs?)://)?(?P<address>[^/\s]+:\d+)/?")
_FILE = click.Path(path_type=Path, dir_okay=False)


@click.command()
@click.argument("endpoint_or_bundle")
@click.argument("table", type=_FILE)
@click.option("--out", type=_FILE, required=True, help="Table to write; its name says the format, as TABLE's does.")
@click.option("--text", default="text", show_default=True, help="Column that holds the texts.")
@click.option("--prefix", default="", help="Of the new columns label, score, truncated and version.")
@click.option("--force", is_flag=True, help="Replace --out if it is there.")
@click.option("--model", help="Name of the model at the endpoint.")
@click.option(
    "--protocol",
    type=click.Choice(["grpc", "http"]),
    default="grpc",
    show_default=True,
    help="Where the address has no scheme.",
)
@click.option("--batch", type=click.IntRange(1, 64), default=64, show_default=True, help="Texts of a request.")
@click.option("--in-flight", type=click.IntRange(1, 256), default=4, show_default=True, help="Requests at a time.")
@click.option("--timeout", "timeout_s", type=float, default=60.0, show_default=True, help="Seconds for a request.")
@click.option(
    "--ca", type=_FILE, help="PEM file of the authority that signed the endpoint's certificate; makes it TLS."
)
@click.option("--certificate", type=_FILE, help="PEM file of your own certificate, for mutual TLS.")
@click.option("--key", type=_FILE, help="PEM file of its key.")
def score(endpoint_or_bundle: str, table: Path, out: Path, text: str, prefix: str, force: bool, **options: Any) -> None:
    """Table → table with predictions, by a running endpoint or a bundle's folder.

    An endpoint is host:port, perhaps after grpc://, grpcs://, http:// or https://. Tables are Parquet, CSV, TSV and
    JSON lines. Rows without text come back without an answer. Credentials are read from the environment:
    SLIPWAY_API_KEY or SLIPWAY_TOKEN.
    """
    from serving.client.table_files import score_file

    if out.exists() and not force:
        raise SlipwayError(f"{out} exists; choose another file, or replace it with --force.")
    with (
        _classifier(endpoint_or_bundle, _Options(**options)) as classify,
        progress(f"Scoring {table.name}") as advance,
    ):
        rows, answered = score_file(table, out, classify, text=text, prefix=prefix, advance=advance)
    empty = f"; {rows - answered:,} without text have no answer" if answered < rows else ""
    say(f"{rows:,} rows{empty}.")
    click.echo(out)


@dataclass(frozen=True)
class _Options:
    """What `slipway score` was told about an endpoint."""

    model: str | None
    protocol: Literal["grpc", "http"]
    batch: int
    in_flight: int
    timeout_s: float
    ca: Path | None
    certificate: Path | None
    key: Path | None


@contextlib.contextmanager
def _classifier(where: str, options: _Options) -> Iterator["Classify"]:
    """What answers texts: the endpoint at the address `where`, or the bundle in the folder `where`."""
    address = _ADDRESS.fullmatch(where)
    if Path(where).exists() or address is None:
        yield _bundle(Path(where))
        return
    if options.model is None:
        raise SlipwayError("an endpoint is asked for a model by its name: give --model NAME.")
    from serving.client import Client, Tls

    scheme = address["scheme"] or ""
    encrypted = scheme in ("https", "grpcs") or options.ca is not None or options.certificate is not None
    with Client(
        address["address"],
        options.model,
        "http" if scheme.startswith("http") else "grpc" if scheme else options.protocol,
        timeout_s=options.timeout_s,
        # A variable that is set but empty is how a pipeline without the secret sets it.
        api_key=os.environ.get("SLIPWAY_API_KEY") or None,
        token=os.environ.get("SLIPWAY_TOKEN") or None,
        tls=Tls(options.ca, options.certificate, options.key) if encrypted else None,
    ) as client:
        yield lambda texts: client.classify_iter(texts, batch=options.batch, in_flight=options.in_flight)


def _bundle(folder: Path) -> "Classify":
    from serving.client import Answer
    from slipway.bundle import Bundle
    from slipway.predictor import Predictor

    bundle = Bundle.open(folder)
    predictor = Predictor(bundle.path, bundle.spec, bundle.target("cpu"), threads=len(os.sched_getaffinity(0)))
    version = bundle.artifact.digest[:12]

    def classify(texts: Iterator[str]) -> Iterator[Answer]:
        found = predictor.predict(list(texts))
        for label, score, truncated in zip(found.labels, found.scores, found.truncated, strict=True):
            yield Answer(label, float(score), truncated=truncated, version=version)

    return classify
