"""Fixtures of the tests that train."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.tiny_base import write_tiny_base


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="session")
def tokenizer(base: Path) -> Any:
    import transformers

    return transformers.AutoTokenizer.from_pretrained(base)


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Weights are repeatable for a number of threads."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
