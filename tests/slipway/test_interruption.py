"""The first Ctrl-C is a request, the second one interrupts, and a SIGTERM stays a SIGTERM.

Each in a process of its own: signals are the process's, and native libraries that other tests load watch them, too.
"""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.unit

_BEFORE = """
import signal
from slipway.interruption import interruptible

class Terminated(Exception):
    pass

def unwind(number, frame):
    raise Terminated

signal.signal(signal.SIGTERM, unwind)
signal.signal(signal.SIGINT, signal.default_int_handler)
INT, TERM = signal.SIGINT, signal.SIGTERM

def receive(*signals, then_end=False):
    with interruptible() as requested:
        for one in signals:
            signal.raise_signal(one)
        if then_end and requested.is_set():
            raise KeyboardInterrupt
    return "went on"

def ending(*signals, **options):
    try:
        return receive(*signals, **options)
    except BaseException as error:
        return type(error).__name__
"""


def outcome(expression: str) -> str:
    """What `print(expression)` prints after `_BEFORE`."""
    code = f"{_BEFORE}\nprint({expression})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("number", ["INT", "TERM"])
def test_the_first_one_is_a_request(number: str) -> None:
    assert outcome(f"ending({number})") == "went on"


def test_the_second_interrupt_is_not() -> None:
    assert outcome("ending(INT, INT)") == "KeyboardInterrupt"


def test_a_caller_that_ends_for_an_interrupt_ends_by_it() -> None:
    assert outcome("ending(INT, then_end=True)") == "KeyboardInterrupt"


def test_a_caller_that_ends_for_sigterm_ends_by_sigterm() -> None:
    assert outcome("ending(TERM, then_end=True)") == "Terminated"


def test_the_second_sigterm_ends_at_once() -> None:
    assert outcome("ending(TERM, TERM)") == "Terminated"


def test_handlers_are_put_back() -> None:
    handlers = "(signal.getsignal(INT), signal.getsignal(TERM))"
    assert outcome(f"({handlers}, receive(INT), {handlers})[0::2] == ({handlers},) * 2") == "True"
