"""The line to paste into a shell."""

import json
import shlex

import pytest

from serving import curl_line

pytestmark = [pytest.mark.unit]


@pytest.mark.parametrize("text", ["good", 'it\'s "odd" $HOME `ls` \\ !', "好\n棒", "👍"])
def test_the_curl_line_survives_a_shell(text: str) -> None:
    words = shlex.split(curl_line("http://127.0.0.1:8080", "tiny", text))
    assert words[:3] == ["curl", "-s", "http://127.0.0.1:8080/v2/models/tiny/infer"]
    assert json.loads(words[4])["inputs"][0]["data"] == [text]
