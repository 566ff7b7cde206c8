"""What a recipe may say about the front door."""

from pathlib import Path

import pytest
import yaml

from slipway.errors import RecipeError
from slipway.recipe import load_recipe

pytestmark = [pytest.mark.unit]


@pytest.fixture
def write(tmp_path: Path) -> Path:
    """Where to write a recipe's `serve` section."""
    return tmp_path / "recipe.yaml"


def load(file: Path, serve: object) -> object:
    base = {
        "name": "tiny",
        "base": {"model": "file:base"},
        "data": {"source": "file:table.csv", "text": "a", "label": "b"},
    }
    file.write_text(yaml.safe_dump({**base, "serve": serve}))
    return load_recipe(file).serve


def test_files_are_taken_from_the_recipes_folder(write: Path) -> None:
    load(write, {"auth": {"keys": "secrets/keys.json"}, "tls": {"certificate": "/etc/tls.crt", "key": "tls.key"}})
    serve = load_recipe(write).serve
    assert serve.auth.keys == str(write.parent / "secrets" / "keys.json")
    assert (serve.tls.certificate, serve.tls.key) == ("/etc/tls.crt", str(write.parent / "tls.key"))


@pytest.mark.parametrize(
    ("serve", "why"),
    [
        ({"auth": {"jwks": "jwks.json"}}, "jwks needs issuer and audiences"),
        ({"auth": {"issuer": "https://a"}}, "need jwks"),
        ({"tls": {"certificate": "a"}}, "belong together"),
        ({"tls": {"client_ca": "a"}}, "needs certificate and key"),
        ({"limits": {"rate": 0}}, "serve.limits.rate"),
        ({"auth": {"keyles": "never"}}, "Did you mean keyless"),
        ({"auth": {"keyless": "always"}}, "allowed: loopback, never"),
    ],
)
def test_what_can_not_be_is_refused_with_its_field(write: Path, serve: object, why: str) -> None:
    with pytest.raises(RecipeError, match=why):
        load(write, serve)
