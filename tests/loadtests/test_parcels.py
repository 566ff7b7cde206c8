"""Files over a connection that loses messages, doubles them and mixes them up."""

import random
from pathlib import Path
from typing import Any

import gevent
import pytest

from loadtests import parcels
from loadtests.parcels import Parcel, Parcels
from slipway.errors import LoadTestError

pytestmark = pytest.mark.unit


class _Message:
    def __init__(self, data: dict[str, Any]) -> None:
        self.data = data
        self.node_id = "worker"


class _Runner:
    """One end of a connection between two; `fate` says how often a message arrives."""

    def __init__(self, fate: random.Random, copies: tuple[int, ...]) -> None:
        self._fate = fate
        self._copies = copies
        self._listeners: dict[str, Any] = {}
        self.other: _Runner = self

    def register_message(self, kind: str, listener: Any) -> None:
        self._listeners[kind] = listener

    def send_message(self, kind: str, data: dict[str, Any], client_id: str = "") -> None:
        for _ in range(self._fate.choice(self._copies)):
            gevent.spawn_later(
                self._fate.random() / 1000, self.other._listeners[kind], environment=None, msg=_Message(data)
            )


def pair(*copies: int) -> tuple[Parcels, Parcels]:
    fate = random.Random(7)
    left, right = _Runner(fate, copies), _Runner(fate, copies)
    left.other, right.other = right, left
    return Parcels(left, master=False), Parcels(right, master=False)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parcels, "_PATIENCE_S", 0.02)
    monkeypatch.setattr(parcels, "_ASKED_TIMES", 40)
    monkeypatch.setattr(parcels, "_PIECE_BYTES", 1000)


@pytest.mark.parametrize("size", [0, 1, 1000, 12_345])
def test_a_file_arrives_whole_whatever_becomes_of_messages(tmp_path: Path, size: int) -> None:
    content = random.Random(size).randbytes(size)
    (tmp_path / "sent").write_bytes(content)
    giver, taker = pair(0, 1, 1, 2)
    taker.fetch(giver.offer("samples", tmp_path / "sent"), tmp_path / "got")
    assert (tmp_path / "got").read_bytes() == content


def test_a_file_that_changes_meanwhile_is_refused(tmp_path: Path) -> None:
    (tmp_path / "sent").write_bytes(b"x" * 3000)
    giver, taker = pair(1)
    parcel = giver.offer("samples", tmp_path / "sent")
    (tmp_path / "sent").write_bytes(b"y" * 3000)
    with pytest.raises(LoadTestError, match="changed while it was fetched"):
        taker.fetch(parcel, tmp_path / "got")


def test_nothing_but_what_is_offered_is_given(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    giver, taker = pair(1)
    giver.offer("texts", tmp_path / "secret")
    for name in ("secret", "../secret", str(tmp_path / "secret")):
        with pytest.raises(LoadTestError, match="did not hand over"):
            taker.fetch(Parcel(name, 6, ""), tmp_path / "got")


def test_a_side_that_is_silent_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parcels, "_ASKED_TIMES", 2)
    _, taker = pair(0)
    with pytest.raises(LoadTestError, match="The master did not hand over texts"):
        taker.fetch(Parcel("texts", 5, ""), tmp_path / "got")
