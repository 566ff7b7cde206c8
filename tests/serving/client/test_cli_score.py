"""`slipway score` as its user types it, through an endpoint."""

from pathlib import Path

import pytest

from slipway.cli import main
from tests.serving.client.scripted_endpoint import ScriptedEndpoint

pytestmark = [pytest.mark.integration]


@pytest.mark.parametrize("variable", ["SLIPWAY_API_KEY", "SLIPWAY_TOKEN"])
def test_a_credential_that_is_set_but_empty_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, "")
    (tmp_path / "in.csv").write_text("text\nabc\n", encoding="utf-8")
    table = str(tmp_path / "in.csv")
    with ScriptedEndpoint("http") as endpoint:
        words = ["score", f"http://{endpoint.address}", table, "--model", "tiny", "--out", str(tmp_path / "out.csv")]
        with pytest.raises(SystemExit) as caught:
            main(words)
    assert caught.value.code == 0
    [received] = endpoint.received
    assert not {"x-api-key", "authorization"} & set(received.headers)
