"""Texts as long as a body may be, through the whole endpoint: each policy answers or refuses, and serves on."""

from pathlib import Path
from typing import Literal

import pytest

import serving
from serving import Client, RequestRefusedError
from slipway.bundle import Bundle
from slipway.recipe import Serve

pytestmark = [pytest.mark.integration]

MEGABYTE = 1_000_000
WORDS = "good " * (MEGABYTE // 5)
"""A single one of these may be within the limit of a body; two are not."""


@pytest.mark.parametrize("policy", ["truncate", "reject", "window"])
def test_a_megabyte_of_text_is_answered_or_refused_and_the_next_request_is_answered(
    bundle: Bundle, tmp_path: Path, policy: Literal["truncate", "reject", "window"]
) -> None:
    section = Serve(port=0, long_text=policy)
    repository = serving.write_repository(bundle, tmp_path / "repository", section).path
    with serving.start(repository, section) as endpoint:
        for protocol in ("grpc", "http"):
            with Client(endpoint.address, endpoint.model, protocol, timeout_s=60) as client:
                # Characters that are words each, and one word that has to be read whole.
                for text in (WORDS, "很" * (MEGABYTE // 3)):
                    if policy == "reject":
                        with pytest.raises(RequestRefusedError, match=r"row 0: the text has at least \d+ tokens"):
                            client.classify([text])
                    else:
                        assert client.classify([text])[0].truncated
                assert not client.classify(["g" * MEGABYTE])[0].truncated
                with pytest.raises(RequestRefusedError, match="the body is larger than 1048576 bytes"):
                    client.classify([WORDS, WORDS])
                with pytest.raises(RequestRefusedError, match="the body is larger than 1048576 bytes"):
                    client.classify(["good " * 4000] * 64)
                assert client.classify(["good"])[0].label == "positive"
