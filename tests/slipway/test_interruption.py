"""The first Ctrl-C is a request, the second one interrupts, and a SIGTERM stays a SIGTERM."""

import signal
from collections.abc import Iterator
from types import FrameType

import pytest

from slipway.interruption import interruptible

pytestmark = pytest.mark.unit


class TerminatedError(Exception):
    pass


@pytest.fixture
def sigterm_raises() -> Iterator[None]:
    """SIGTERM as the command line takes it: an exception of its own."""

    def unwind(_number: int, _frame: FrameType | None) -> None:
        raise TerminatedError

    before = signal.signal(signal.SIGTERM, unwind)
    yield
    signal.signal(signal.SIGTERM, before)


def receive(*signals: signal.Signals, then_end: bool = False) -> None:
    """What a loop goes through that gets `signals`, and ends as asked if `then_end`."""
    with interruptible() as requested:
        for one in signals:
            signal.raise_signal(one)
        if then_end and requested.is_set():
            raise KeyboardInterrupt


def test_the_first_interrupt_is_a_request() -> None:
    with interruptible() as requested:
        signal.raise_signal(signal.SIGINT)
        assert requested.is_set()


def test_the_second_interrupt_is_not() -> None:
    with pytest.raises(KeyboardInterrupt):
        receive(signal.SIGINT, signal.SIGINT)


@pytest.mark.usefixtures("sigterm_raises")
def test_a_caller_that_ends_for_sigterm_ends_by_sigterm() -> None:
    with pytest.raises(TerminatedError):
        receive(signal.SIGTERM, then_end=True)


@pytest.mark.usefixtures("sigterm_raises")
def test_the_second_sigterm_ends_at_once() -> None:
    with pytest.raises(TerminatedError):
        receive(signal.SIGTERM, signal.SIGTERM)


def test_handlers_are_put_back() -> None:
    before = signal.getsignal(signal.SIGINT)
    with interruptible():
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before
