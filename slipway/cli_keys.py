"""`slipway keys`: the API keys that an endpoint lets in. The file has hashes; a key is shown once, when it is made."""

import datetime
from pathlib import Path

import click

from slipway.errors import SlipwayError
from slipway.progress import say
from slipway.quantities import Seconds

FILE = click.argument("file", type=click.Path(path_type=Path))


@click.group()
def keys() -> None:
    """Make, list and revoke the API keys of an endpoint; one that runs takes notice by itself."""


@keys.command("new")
@FILE
@click.argument("key_id", metavar="ID")
@click.option("--scope", "scopes", multiple=True, required=True, help="predict:MODEL or admin:MODEL; * for any model.")
@click.option("--valid-for", "valid_s", type=Seconds(), help="How long it is good for, e.g. 90d; for ever unless told.")
def new(file: Path, key_id: str, scopes: tuple[str, ...], valid_s: float | None) -> None:
    """Add a key called ID to FILE and print it, this once."""
    from serving.frontdoor.credentials import new_key

    valid_for = datetime.timedelta(seconds=valid_s) if valid_s is not None else None
    kept, text = new_key(file, key_id, scopes, valid_for=valid_for)
    until = f" until {kept.expires}" if kept.expires else ""
    say(f"{key_id}: {', '.join(kept.scopes)}{until}. {file} has its hash; this is the only time that it is shown:")
    click.echo(text)


@keys.command("list")
@FILE
def list_(file: Path) -> None:
    """Print the keys of FILE, without the keys."""
    from serving.frontdoor.credentials import read_keys

    found = read_keys(file)
    width = max((len(key.id) for key in found), default=0)
    now = datetime.datetime.now(datetime.UTC).timestamp()
    for key in found:
        ended = " (expired)" if key.expires_at and key.expires_at <= now else ""
        click.echo(
            f"{key.id:<{width}}  {key.sha256[:12]}…  made {key.created}  "
            f"until {key.expires or 'revoked'}{ended}  {' '.join(key.scopes)}"
        )


@keys.command("revoke")
@FILE
@click.argument("key_id", metavar="ID")
@click.option("--yes", is_flag=True, help="Don't ask.")
def revoke(file: Path, key_id: str, yes: bool) -> None:
    """Remove the key called ID from FILE; whoever has it is refused from then on."""
    from serving.frontdoor.credentials import revoke_key

    if not yes and not click.confirm(f"Refuse whoever has the key {key_id!r} from now on?", err=True):
        raise SlipwayError("nothing was revoked.")
    revoke_key(file, key_id)
    say(f"{key_id} is revoked.")
