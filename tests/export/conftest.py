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


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take less time to measure speed and memory: `measurement/` asks how right they are."""
    from export.measurement.memory import Memory
    from export.search import speed

    monkeypatch.setattr(speed, "_SECONDS", dict.fromkeys(speed._SECONDS, 1.0))
    for name in ("session_memory", "torch_memory"):
        monkeypatch.setattr(speed, name, lambda *_, **__: Memory(resident_mb=1.0, peak_mb=2.0))


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Weights are repeatable for a number of threads."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
