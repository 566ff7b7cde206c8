"""Ctrl-C as a request: the first one lets what is under way end and be saved, the second one interrupts as usual.

An exception in the middle of a step would leave weights and optimizer of two different steps; a flag that the loop
reads between steps costs at most one step of waiting. SIGTERM is a request, too, as containers are stopped with it;
whoever sent it still sees the process end by it, and not by a Ctrl-C that nobody pressed.
"""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from slipway.progress import say


@contextlib.contextmanager
def interruptible() -> Iterator[threading.Event]:
    """Yield an event that the first Ctrl-C (or SIGTERM) sets; the caller ends then and raises `KeyboardInterrupt`.

    If it was SIGTERM that asked, it is delivered again in place of that exception, to whatever handled it before.

    Outside the main thread, which alone receives signals, the event is never set. Handlers are put back at the end.
    """
    requested = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield requested
        return
    received: list[int] = []
    before: dict[signal.Signals, Callable[[int, FrameType | None], Any] | int | None] = {}

    def request(number: int, _frame: FrameType | None) -> None:
        requested.set()
        say("Stopping after this step; press Ctrl-C again to stop at once")
        received.append(number)
        signal.signal(number, before[signal.Signals(number)])

    for number in (signal.SIGINT, signal.SIGTERM):
        before[number] = signal.signal(number, request)
    try:
        try:
            yield requested
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
    except KeyboardInterrupt:
        if signal.SIGTERM in received:
            signal.raise_signal(signal.SIGTERM)
        raise
