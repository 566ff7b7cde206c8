"""A bundle, and files of texts that say what the fake endpoint shall do with them."""

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import settings

from slipway.bundle import Bundle
from tests.loadtests.fake_endpoint import label_of
from tests.tiny_bundle import write_tiny_bundle

# A busy machine must not fail a property: how long an example takes says nothing.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

WriteTexts = Callable[[list[str]], Path]


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_tiny_bundle(tmp_path_factory.mktemp("tiny") / "bundle")


@pytest.fixture
def write_texts(tmp_path: Path) -> WriteTexts:
    """Write texts with the answers that the fake endpoint gives to them (`!wrong` ones aside)."""

    def write(texts: list[str]) -> Path:
        file = tmp_path / "texts.parquet"
        pq.write_table(pa.table({"text": texts, "predicted": [label_of(text) for text in texts]}), file)
        return file

    return write
