"""`slipway keys`, as its user meets it."""

import hashlib
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from slipway.cli import cli

pytestmark = [pytest.mark.unit]


def keys(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["keys", *map(str, arguments)])


def test_a_key_is_shown_once_and_its_hash_is_kept(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    made = keys("new", file, "web", "--scope", "predict:reviews", "--valid-for", "90d")
    key = made.stdout.strip()
    assert key.startswith("slw_")
    assert key not in file.read_text()
    listed = keys("list", file)
    assert key not in listed.output
    assert hashlib.sha256(key.encode()).hexdigest()[:12] in listed.output
    assert "predict:reviews" in listed.output


def test_revoking_asks_first(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    keys("new", file, "web", "--scope", "predict:reviews")
    assert keys("revoke", file, "web").exit_code != 0
    assert "web" in keys("list", file).output
    assert keys("revoke", file, "web", "--yes").exit_code == 0
    assert "web" not in keys("list", file).output


def test_a_scope_that_is_none_is_refused(tmp_path: Path) -> None:
    refused = keys("new", tmp_path / "keys.json", "web", "--scope", "everything")
    assert refused.exit_code != 0
    assert "not predict:MODEL or admin:MODEL" in str(refused.exception)
    assert not (tmp_path / "keys.json").exists()
